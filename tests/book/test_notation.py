"""Every symbol of the notation page is computed by the code that stands beside it."""

import importlib
import inspect
import re

import pytest
import torch

from flatbook import attacks, models
from tests.cases import head
from tools import contents

PAGE = contents.ROOT / "book" / "notation.md"
MODULES = ("softmax", "losses", "curvature", "radius", "lipschitz", "scaling")
FUNCTIONS = {
    name: getattr(module, name)
    for module in (importlib.import_module(f"flatbook.{m}") for m in MODULES)
    for name in module.__all__
} | {"pgd": attacks.pgd, "scale_head": models.scale_head}
ARGUMENTS = {
    name
    for function in FUNCTIONS.values()
    if inspect.isfunction(function)
    for name in inspect.signature(function).parameters
}
EPS, RHO, SCALE = 0.3, 0.7, 3.0


def rows():
    """Symbol -> the expressions beside it."""
    table = PAGE.read_text(encoding="utf8").partition("## Symbols")[2]
    cells = [
        re.split(r"(?<!\\) \| ?", line[2:])
        for line in table.splitlines()
        if line.startswith("| $")
    ]
    return {cell[0]: re.findall(r"`([^`]+)`", cell[2]) for cell in cells}


def outer(a, b):
    return torch.einsum("na,nb->nab", a, b)


def kron(a, b):
    return torch.stack([torch.kron(*pair) for pair in zip(a, b, strict=True)])


@pytest.fixture(scope="module")
def names():
    """What the entries of the page may use, as its text says."""
    weight, features, _, labels = head(4, 3, 5, seed=2)
    bias = torch.tensor([0.2, -0.1, 0.4]).double()
    logits = features @ weight.T + bias
    labels = logits.argmax(1)
    v = torch.linspace(-1, 1, 5).double()
    model = models.build("mlp", 3, width=0.1, in_channels=1, image_size=8)
    model = models.reinitialise(model, 1).double().eval()
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    attack = attacks.pgd(
        model, x, model(x).argmax(1), norm="l2", eps=EPS, step_size=EPS, steps=2
    )
    named = {"weight": weight, "features": features, "logits": logits}
    named |= {"labels": labels, "v": v, "u": weight @ v, "model": model, "x": x}
    named |= {"attack": attack, "eps": EPS, "rho": RHO, "L": 2.0, "s": SCALE}
    named |= {"cdist": torch.cdist, "kron": kron, "outer": outer}
    return named | {"f": torch.expm1} | FUNCTIONS


def value(expression, names):
    return eval(expression, {"__builtins__": {}}, names)


def head_loss(names, k=0):
    """The loss of one sample as a function of W, and of the logits."""
    phi, y = names["features"][k], names["labels"][k]
    shift = names["logits"][k] - names["weight"] @ phi
    by_logits = lambda z: z.logsumexp(0) - z[y]  # noqa: E731
    return lambda w: by_logits(w @ phi + shift), by_logits


def scatter(n):
    p, w = n["logits"].softmax(1), n["weight"]
    return torch.stack([(w - q @ w).square().sum(1) @ q for q in p])


def every(f):
    """A formula for one sample, for the batch."""
    return lambda n: torch.stack([f(n, k) for k in range(len(n["logits"]))])


def hessian_in_features(n, k):
    _, loss = head_loss(n, k)
    shift = n["logits"][k] - n["weight"] @ n["features"][k]
    return torch.autograd.functional.hessian(
        lambda phi: loss(n["weight"] @ phi + shift), n["features"][k]
    )


def third(n, k):
    hessian = torch.func.hessian(head_loss(n, k)[1])
    return torch.func.jacrev(hessian)(n["logits"][k])


def hessian_in_weights(n, k):
    full = torch.autograd.functional.hessian(head_loss(n, k)[0], n["weight"])
    return full.reshape(15, 15)


def rivals(n, k):
    z, y = n["logits"][k], n["labels"][k]
    others = [j for j in range(len(z)) if j != y]
    return z, y, others


def lead(n, k):
    z, y, others = rivals(n, k)
    return torch.stack([z[y] - z[j] for j in others]).min()


def flip(n, k):
    z, y, others = rivals(n, k)
    w = n["weight"]
    return torch.stack([(z[y] - z[j]) / (w[y] - w[j]).norm() for j in others]).min()


def input_gram_trace(n, k):
    """Tr of the input Hessian by automatic differentiation: what the Grams are for."""
    model, x = n["model"], n["x"][k : k + 1]
    y = model(x).argmax(1)[0]
    loss = lambda v: head_free(model(v)[0], y)  # noqa: E731
    return torch.autograd.functional.hessian(loss, x).reshape(64, 64).trace()


def head_free(z, y):
    return z.logsumexp(0) - z[y]


EXACT = {
    "cross_entropy(logits, labels)": every(
        lambda n, k: -n["logits"][k].softmax(0)[n["labels"][k]].log()
    ),
    "log_odds(logits, labels)": every(
        lambda n, k: (
            n["logits"][k][rivals(n, k)[2]].logsumexp(0)
            - n["logits"][k, n["labels"][k]]
        )
    ),
    "margin(logits, labels)": every(lead),
    "covariance(logits)": every(
        lambda n, k: torch.func.hessian(head_loss(n, k)[1])(n["logits"][k])
    ),
    "third_derivative(logits)": every(third),
    "third_derivative(logits) @ u @ u @ u": every(
        lambda n, k: (
            n["logits"][k].softmax(0)
            @ (n["u"] - n["logits"][k].softmax(0) @ n["u"]) ** 3
        )
    ),
    "kron(covariance(logits), outer(features, features))": every(hessian_in_weights),
    "trace_p(logits)": every(lambda n, k: 1 - n["logits"][k].softmax(0).square().sum()),
    "hessian_trace(features, logits)": every(
        lambda n, k: hessian_in_weights(n, k).trace()
    ),
    "relative_sharpness(weight, features, logits)": every(
        lambda n, k: n["weight"].square().sum() * hessian_in_weights(n, k).trace()
    ),
    "centred_rows(weight, logits)": every(
        lambda n, k: n["weight"] - n["logits"][k].softmax(0) @ n["weight"]
    ),
    "relative_flatness(weight, features, logits)": lambda n: (
        n["features"].square().sum(1) * scatter(n)
    ),
    "weight.T @ covariance(logits) @ weight": every(hessian_in_features),
    "lambda_max(weight, logits)": every(
        lambda n, k: torch.linalg.eigvalsh(hessian_in_features(n, k))[-1]
    ),
    "bound_coefficients(weight, logits, labels)[0]": every(
        lambda n, k: (
            n["weight"].T @ torch.func.grad(head_loss(n, k)[1])(n["logits"][k])
        ).norm()
    ),
    "bound_coefficients(weight, logits, labels)[2]": every(
        lambda n, _: torch.cdist(n["weight"], n["weight"]).max() ** 3 / (36 * 3**0.5)
    ),
    "flip_radius(weight, logits, labels)": every(flip),
    "cdist(weight, weight)": lambda n: (n["weight"][:, None] - n["weight"]).norm(dim=2),
    "weight @ v": lambda n: n["u"],
    "u.max() - u.min()": lambda n: torch.cdist(n["u"][:, None], n["u"][:, None]).max(),
    "logits.softmax(1)": lambda n: (
        n["logits"].exp() / n["logits"].exp().sum(1, keepdim=True)
    ),
}


def all_expressions():
    return [expression for found in rows().values() for expression in found]


def test_every_symbol_has_an_entry_that_names_the_package(names):
    found = rows()
    assert len(found) > 30
    assert len(set(found)) == len(found)
    known = set(FUNCTIONS) | ARGUMENTS | {"attack"}
    for symbol, expressions in found.items():
        words = set(re.findall(r"[a-z_]+", " ".join(expressions), re.I))
        assert words & (known | {"L", "s", "u"}), symbol
    assert set(re.findall(r"\w+(?=\()", " ".join(all_expressions()))) <= {
        *FUNCTIONS,
        *("cdist", "kron", "outer", "softmax", "max", "min"),
    }


@pytest.mark.parametrize("expression", all_expressions())
def test_every_entry_runs(expression, names):
    assert value(expression, names) is not None


@pytest.mark.parametrize("expression", EXACT)
def test_entries_are_the_symbols(expression, names):
    assert expression in all_expressions()
    got, wanted = value(expression, names), EXACT[expression](names)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


def test_radii_bounds_and_constants(names):
    """Entries that return one of many possible values: what they must satisfy."""

    def run(expression):
        assert expression in all_expressions()
        return value(expression, names)

    n = names
    rise = run('loss_increase_bounds(weight, logits, labels, rho)["best"]')
    moves = torch.randn(500, 5, generator=torch.Generator().manual_seed(1)).double()
    moves = RHO * moves / moves.norm(dim=1, keepdim=True)
    loss = lambda z: torch.nn.functional.cross_entropy(z, n["labels"], reduction="none")  # noqa: E731
    for move in moves:
        moved = loss(n["logits"] + n["weight"] @ move)
        assert bool((moved - loss(n["logits"]) <= rise + 1e-12).all())
    rho = run("loss_radius(weight, logits, labels, eps)")
    bounds = n["loss_increase_bounds"](n["weight"], n["logits"], n["labels"], rho)
    torch.testing.assert_close(
        bounds["best"], torch.full_like(rho, EPS), rtol=1e-6, atol=0
    )
    delta = run("certified_radius(weight, logits, labels, lipschitz=L)")
    assert bool((2.0 * delta <= flips(n) + 1e-12).all())
    assert bool((delta > 0).any())


def flips(n):
    return every(flip)(n)


def test_networks_and_attacks(names):
    n, everything = names, all_expressions()
    assert {"input_gram(model, x)", "layer_grams(model, x)"} <= set(everything)
    gram, logits = value("input_gram(model, x)", n)
    wanted = torch.stack([input_gram_trace(n, k) for k in range(3)])
    torch.testing.assert_close(FUNCTIONS["gram_trace"](gram, logits), wanted)
    traces = value("layer_hessian_traces(model, x)", n)
    grams, logits = value("layer_grams(model, x)", n)
    assert set(traces) == set(grams)
    for layer, trace in traces.items():
        torch.testing.assert_close(FUNCTIONS["gram_trace"](grams[layer], logits), trace)
    moved = (value("attack.adversarial", n) - n["x"]).flatten(1).norm(dim=1)
    assert bool((moved <= EPS + 1e-9).all())
    assert bool((moved > 0).all())
    features = n["model"].features
    stretch = (features(n["attack"].adversarial) - features(n["x"])).norm(dim=1) / moved
    assert bool((stretch <= value("global_bound(model, x)", n)).all())
    scaled = value("scale_head(model, s)", n)
    torch.testing.assert_close(scaled(n["x"]), SCALE * n["model"](n["x"]))


def test_peak_and_curves(names):
    n = names
    assert {
        "peak_sharpness(weight, features, logits)",
        "hessian_through(f, logits, labels)",
    } <= set(all_expressions())
    flatness = FUNCTIONS["relative_flatness"]
    scales = torch.logspace(-2, 2, 4001).double()
    curve = [flatness(s * n["weight"], n["features"], s * n["logits"]) for s in scales]
    peak = value("peak_sharpness(weight, features, logits)", n)
    torch.testing.assert_close(torch.stack(curve).amax(0), peak, rtol=1e-5, atol=0)
    got = value("hessian_through(f, logits, labels)", n)
    for k in range(4):
        _, loss = head_loss(n, k)
        through = torch.func.hessian(lambda z, loss=loss: loss(z).expm1())
        torch.testing.assert_close(got[k], through(n["logits"][k]))
