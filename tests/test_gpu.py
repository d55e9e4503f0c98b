import pytest
import torch

from flatbook import _gpu
from tests.waiting import Waits

BACKENDS = torch.backends


def state():
    """All switches, None for those that torch refuses to read."""
    cudnn = (BACKENDS.cudnn.deterministic, BACKENDS.cudnn.benchmark)
    return (*cudnn, *(_gpu._read(read) for read, _, _ in _gpu._switches()))


@pytest.fixture(autouse=True)
def restored():
    """Whatever a test sets, the next one finds what was there before."""
    old = state()
    yield
    BACKENDS.cudnn.deterministic, BACKENDS.cudnn.benchmark = old[:2]
    if hasattr(BACKENDS, "fp32_precision"):
        BACKENDS.fp32_precision = "none"
    for (_, write, _), value in zip(_gpu._switches(), old[2:], strict=True):
        write(value)


def high():
    torch.set_float32_matmul_precision("high")


def forbidden():
    BACKENDS.cudnn.allow_tf32 = False


def convolution_only():
    """The newer switch of one operation: the older one cannot be read any more."""
    BACKENDS.cudnn.allow_tf32 = False
    BACKENDS.cudnn.conv.fp32_precision = "tf32"


def everything():
    BACKENDS.fp32_precision = "tf32"


def trials():
    BACKENDS.cudnn.benchmark = True


NEWER = [convolution_only, everything] if hasattr(BACKENDS.cudnn, "conv") else []


@pytest.mark.parametrize("change", [dict, high, forbidden, trials, *NEWER])
def test_exact_sets_all_switches_and_sets_them_back(change):
    change()
    before = state()
    with _gpu.exact():
        assert torch.get_float32_matmul_precision() == "highest"
        assert not BACKENDS.cudnn.allow_tf32
        assert not BACKENDS.cuda.matmul.allow_tf32
        if NEWER:
            assert BACKENDS.cudnn.conv.fp32_precision == "ieee"
            assert BACKENDS.cuda.matmul.fp32_precision == "ieee"
        assert BACKENDS.cudnn.deterministic
        assert not BACKENDS.cudnn.benchmark
    # An unset switch may come back as what it meant: in full.
    same = [
        a == b or {a, b} == {"none", "ieee"}
        for a, b in zip(before, state(), strict=True)
    ]
    assert all(same)


def test_exact_sets_back_after_an_exception():
    high()
    before = state()
    with pytest.raises(KeyError), _gpu.exact():
        raise KeyError
    assert state() == before


def test_exact_leaves_autocast_to_its_caller():
    with torch.autocast("cpu", torch.bfloat16), _gpu.exact():
        assert torch.is_autocast_enabled("cpu")


def test_measuring_ends_an_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        with _gpu.measuring(torch.device("cpu")):
            assert not torch.is_autocast_enabled("cpu")
            assert not BACKENDS.cudnn.allow_tf32
        assert torch.is_autocast_enabled("cpu")


def test_repeatable_leaves_the_precision_alone():
    high()
    BACKENDS.cudnn.benchmark = True
    before = state()
    with _gpu.repeatable():
        assert state() == (True, False, *before[2:])
    assert state() == before


@pytest.mark.parametrize("trials", [True, False])
def test_free_choice_is_taken_back(trials):
    before = state()
    with _gpu.algorithms(same_bits=False, trials=trials):
        assert state() == (False, trials, *before[2:])
    assert state() == before


def test_send_stays_at_home():
    x = torch.rand(3)
    assert _gpu.send(x, torch.device("cpu")) is x
    assert _gpu.send(x, torch.device("meta")).device.type == "meta"


def test_send_pins_for_a_gpu_and_does_not_wait(monkeypatch):
    """Pinned first, then copied without waiting; only from the host to a GPU."""
    calls = []

    def pin(tensor):
        calls.append("pin")
        return tensor

    def to(tensor, device, non_blocking=False):
        calls.append((device.type, non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", to)
    _gpu.send(torch.ones(2), torch.device("cuda"))
    assert calls == ["pin", ("cuda", True)]
    calls.clear()
    _gpu.send(torch.ones(2, device="meta"), torch.device("cuda"))
    assert calls == [("cuda", False)]


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x[0].item(),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.masked_select(x > 0),
        lambda x: torch.equal(x, x),
    ],
)
def test_what_waits_is_noticed(read):
    with Waits() as waits:
        read(torch.ones(3))
    assert waits.names
