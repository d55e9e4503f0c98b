"""The course plans fit the chapters as they are: minutes, references, explorers."""

import re

import pytest

from tools import contents

BOOK = contents.ROOT / "book"
PLANS = ("lecture", "workshop", "module")
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
ROW = re.compile(r"^\| (\d+) \|", re.M)
UNIT = re.compile(r"^\((?P<anchor>[\w-]+)\)=\n## (?P<title>.+)\n", re.M)
PARTS = ("**Goal", "**Board", "rong answers.**", "**Explorer.**", "**Hand out**")


def read(name):
    return (BOOK / f"{name}.md").read_text(encoding="utf8")


def slug(heading):
    """The anchor that the pages give to a heading."""
    plain = re.sub(r"\$[^$]*\$|[`*]", "", heading).strip().lower().replace(" ", "-")
    return re.sub(r"[^\w-]", "", plain)


def units(plan):
    """Anchor -> text of the unit."""
    text = read(f"teaching/{plan}")
    starts = [*UNIT.finditer(text)]
    ends = [m.start() for m in starts[1:]] + [len(text)]
    return {m["anchor"]: text[m.end() : e] for m, e in zip(starts, ends, strict=True)}


def overview(plan):
    """Anchor -> minutes, from the table at the head of the plan."""
    head = UNIT.split(read(f"teaching/{plan}"))[0]
    rows = re.findall(r"^\| (\d+) \| \[[^]]+\]\(#([\w-]+)\)", head, re.M)
    return {anchor: int(minutes) for minutes, anchor in rows}


def table(text):
    return [line for line in text.splitlines() if ROW.match(line)]


def everything():
    pages = [f"teaching/{plan}" for plan in PLANS]
    return "\n".join(map(read, [*pages, "teaching/notes", "teaching"]))


def chapters():
    return [path.stem for path in contents.notebooks()]


def source(chapter):
    cells = contents.cells(BOOK / f"{chapter}.ipynb")
    return [(cell["cell_type"], contents.text(cell)) for cell in cells]


def sections(chapter):
    """Slug of every section -> whether it has an explorer."""
    found, now = {}, ""
    for kind, text in source(chapter):
        if kind == "markdown":
            for heading in re.findall(r"^#{1,3} (.+)$", text, re.M):
                now = slug(heading)
                found.setdefault(now, False)
        elif re.search(r"\bexplore\(", text):
            found[now] = True
    return found


def labels():
    text = "\n".join(t for c in chapters() for k, t in source(c) if k == "markdown")
    return set(re.findall(r"^:label: *(\S+)", text, re.M))


@pytest.mark.parametrize("plan", PLANS)
def test_minutes_of_every_unit_add_up(plan):
    found, wanted = units(plan), overview(plan)
    assert list(found) == list(wanted)
    sums = {a: sum(map(int, ROW.findall(text))) for a, text in found.items()}
    assert sums == wanted


def test_the_first_page_knows_units_and_minutes():
    rows = re.findall(
        r"\(teaching/(\w+)\) \|[^|]+\| (\d+) \| (\d+) \|", read("teaching")
    )
    have = {plan: (int(n), int(minutes)) for plan, n, minutes in rows}
    want = {p: (len(overview(p)), sum(overview(p).values())) for p in PLANS}
    assert have == want


def test_names_keep_their_promises():
    assert sum(overview("lecture").values()) == 90
    assert set(overview("workshop").values()) == {75}
    assert set(overview("module").values()) == {90}
    assert len(overview("module")) == 2 * 7


@pytest.mark.parametrize("plan", PLANS)
def test_every_unit_has_every_part(plan):
    for anchor, text in units(plan).items():
        assert [part for part in PARTS if part not in text] == [], anchor
        assert re.search(r"If\s+time\s+is\s+short", text), anchor


def test_every_chapter_has_a_note_with_every_part():
    notes = re.split(r"^## ", read("teaching/notes"), flags=re.M)[1:]
    named = [re.search(r"\[\]\(\.\./(\w+)\)", note)[1] for note in notes]
    assert sorted(named) == sorted(chapters())
    parts = ("**Afterwards they can**", "**Board.**", "**Wrong answers.**")
    for note in notes:
        missing = [p for p in (*parts, *PARTS[3:]) if p not in note]
        assert missing == [], note.splitlines()[0]
        assert "**If time is short**" in note


@pytest.mark.parametrize("plan", ["workshop", "module"])
def test_every_chapter_is_taught(plan):
    named = set(re.findall(r"\.\./(\w+)(?:\.ipynb)?[#)]", read(f"teaching/{plan}")))
    assert set(chapters()) <= named


def test_the_table_of_a_unit_stays_within_its_chapters():
    """A unit names its chapters in the plan's table; only "May I say" is shared."""
    for plan in PLANS:
        head = UNIT.split(read(f"teaching/{plan}"))[0]
        for line in table(head):
            anchor = re.search(r"\(#([\w-]+)\)", line)[1]
            own = set(re.findall(r"\(\.\./(\w+)\)", line))
            rows = "\n".join(table(units(plan)[anchor]))
            rows = rows.replace("../what_flatness_guarantees.ipynb#may-i-say-", "")
            used = set(re.findall(r"\(\.\./(\w+)(?:\.ipynb)?[#)]", rows))
            assert used <= own, (plan, anchor)


def test_every_section_exists():
    known = {c: set(sections(c)) for c in chapters()}
    found = re.findall(r"\(\.\./(\w+)\.ipynb#([\w-]+)\)", everything())
    assert len(found) > 100
    assert [link for link in found if link[1] not in known[link[0]]] == []


def test_every_label_exists():
    found = set(re.findall(r"\{(?:prf:)?ref\}`([\w-]+)`", everything()))
    assert len(found) > 50
    assert found <= labels()


def test_what_is_called_an_explorer_is_one():
    """Links in a paragraph that begins with Explorer lead to a section with one."""
    seen = set()
    for paragraph in re.split(r"\n\s*\n", everything()):
        if paragraph.startswith("**Explorer.**"):
            links = re.findall(r"\(\.\./(\w+)\.ipynb#([\w-]+)\)", paragraph)
            assert links, paragraph
            for chapter, anchor in links:
                assert sections(chapter)[anchor], (chapter, anchor)
                seen.add(chapter)
    assert seen == set(chapters())


def test_notes_name_exercises_of_their_own_chapter():
    for note in re.split(r"^## ", read("teaching/notes"), flags=re.M)[1:]:
        chapter = re.search(r"\[\]\(\.\./(\w+)\)", note)[1].replace("_", "-")
        exercises = re.findall(r"\{ref\}`(ex-[\w-]+)`", note)
        assert len(exercises) == len(set(exercises)) >= 3, chapter
        assert all(ex.startswith(f"ex-{chapter}-") for ex in exercises), chapter


def test_links_between_the_plans_and_the_notes():
    known = {
        slug(heading)
        for heading in re.findall(r"^## (.+)$", read("teaching/notes"), re.M)
    }
    found = set(re.findall(r"\(notes\.md#([\w-]+)\)", everything()))
    assert found <= known
    assert len(found) == len(chapters())
