"""Which statements of a notebook an answer needs, found from the code itself.

A solution of the book is code that ends in ``print(check("chapter.topic", answer))``.
`answers` takes it apart: the statements that lead to the answer, those of the chapter
that they build on, and the rest, which only shows something. Names are resolved by the
scopes of Python (`symtable`), so a local name of a function is no reason to keep a
global one.
"""

import ast
import symtable
from collections.abc import Iterable
from dataclasses import dataclass, field

IMPORTS = (ast.Import, ast.ImportFrom)
SETTINGS = ("torch.set_default_dtype(",)  # lines that every answer may rely on
WHOLE = (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, *IMPORTS)


@dataclass(frozen=True)
class Statement:
    """A statement at the top of a code cell.

    Attributes:
        source: its text.
        node: its syntax tree.
        cell: the number of its cell.
        binds: names that it sets or changes.
        reads: global names that it uses.
    """

    source: str
    node: ast.stmt
    cell: int
    binds: frozenset[str]
    reads: frozenset[str]

    @property
    def check(self) -> tuple[str, ast.expr] | None:
        """Name and answer of the call to ``check`` in it, if there is one."""
        for node in ast.walk(self.node):
            if isinstance(node, ast.Call) and len(node.args) == 2:
                called = ast.unparse(node.func).rpartition(".")[2]
                if called == "check" and isinstance(node.args[0], ast.Constant):
                    return node.args[0].value, node.args[1]
        return None


@dataclass
class Answer:
    """What the solution of one exercise consists of.

    Attributes:
        checks: names of checkers, with the expression that each one gets.
        needed: statements that lead to these expressions.
        shown: statements that only show something.
    """

    checks: list[tuple[str, ast.expr]] = field(default_factory=list)
    needed: list[Statement] = field(default_factory=list)
    shown: list[Statement] = field(default_factory=list)


def statements(source: str, cell: int) -> list[Statement]:
    """The statements at the top of a cell, each with the comments above it."""
    lines, found, begin = source.splitlines(), [], 0
    for node in ast.parse(source).body:
        text = "\n".join(lines[begin : node.end_lineno]).strip("\n")
        begin = node.end_lineno or 0
        binds, reads = names(node)
        found.append(Statement(text, node, cell, binds, reads))
    return found


def names(node: ast.AST) -> tuple[frozenset[str], frozenset[str]]:
    """The global names that a statement sets or changes, and those that it uses."""
    table = symtable.symtable(ast.unparse(node), "cell", "exec")
    binds = {s.get_name() for s in table.get_symbols() if s.is_assigned()}
    binds |= {s.get_name() for s in table.get_symbols() if s.is_imported()}
    reads = {s.get_name() for s in table.get_symbols() if s.is_referenced()}
    todo = list(table.get_children())
    while todo:
        scope = todo.pop()
        todo += scope.get_children()
        reads |= {s.get_name() for s in scope.get_symbols() if s.is_global()}
    return frozenset(binds | _changed(node)), frozenset(reads)


def _changed(node: ast.AST) -> set[str]:
    """Names of which an entry or attribute is set: ``a`` in ``a[0].b = 1``."""
    found = set()
    for part in ast.walk(node):
        kinds = ast.Attribute | ast.Subscript
        if isinstance(part, kinds) and isinstance(part.ctx, ast.Store):
            base: ast.AST = part
            while isinstance(base, kinds):
                base = base.value
            found |= {base.id} if isinstance(base, ast.Name) else set()
    return found


def back(code: list[Statement], wanted: Iterable[str]) -> list[Statement]:
    """The statements that names at the end of the code depend on, in their order."""
    todo, kept = set(wanted), []
    for statement in reversed(code):
        if statement.check is None and statement.binds & todo:
            kept.append(statement)
            if isinstance(statement.node, WHOLE):
                todo -= statement.binds - _changed(statement.node)
            todo |= statement.reads
    return kept[::-1]


def answers(
    cells: dict[int, str], solutions: list[tuple[int, ...]]
) -> tuple[list[Statement], list[Answer]]:
    """Take the code of a notebook apart.

    Args:
        cells: number -> source of its code cells, without those for IPython only.
        solutions: the numbers of the cells of each exercise's solution.

    Returns:
        What the chapter itself contributes, with its settings and the imports of the
        solutions, and an `Answer` for each exercise.
    """
    owner = {n: k for k, numbers in enumerate(solutions) for n in numbers}
    code = [s for n, source in cells.items() for s in statements(source, n)]
    found = [Answer() for _ in solutions]
    needed: set[int] = set()
    for end, statement in enumerate(code):
        if statement.cell in owner and statement.check:
            name, answer = statement.check
            found[owner[statement.cell]].checks.append((name, answer))
            needed |= set(map(id, back(code[:end], names(answer)[1])))
    setup = []
    for statement in code:
        home = owner.get(statement.cell)
        if home is None and statement.source.startswith(SETTINGS):
            needed.add(id(statement))
        is_import = isinstance(statement.node, IMPORTS)
        if id(statement) in needed and (home is None or is_import):
            setup.append(statement)
        elif id(statement) in needed:
            found[home].needed.append(statement)
        elif home is not None and not is_import and not statement.check:
            found[home].shown.append(statement)
    return setup, found
