import pytest

from flatbook import profiles
from flatbook.reproduce import GRID, plan, select
from flatbook.reproduce._grid import FIGURES


def names(entries):
    return [(e.experiment, e.model, e.data) for e in entries]


def test_the_grid_is_the_papers():
    """Four networks on two sets of images, and every figure that is an experiment."""
    for experiment in ("loss_geometry", "uncanny_valley"):
        pairs = {
            (e.model, e.data)
            for e in GRID
            if e.experiment == experiment and not e.adversarial
        }
        assert len(pairs) == 8
    numbered = {f"fig{n}" for n in range(2, 17)} - {"fig15"}
    assert set(FIGURES) == numbered | {"d2", "d3", "d4"}
    assert len(GRID) == len(set(GRID)) == 21
    (robust,) = (e for e in GRID if e.adversarial)
    assert robust.figures == "fig12"


def test_selections_cut_across_each_other():
    assert select() == list(GRID)
    assert names(select(only=["fig3"])) == [("uncanny_valley", "resnet18", "cifar10")]
    assert len(select(only=["fig16"])) == 8
    assert len(select(only=["fig16", "fig9"], data=["cifar100"])) == 5
    assert names(select(only=["loss_geometry"], model=["vgg11_bn"])) == [
        ("loss_geometry", "vgg11_bn", "cifar10"),
        ("loss_geometry", "vgg11_bn", "cifar100"),
    ]


def test_other_images_take_the_place_of_cifar10():
    digits = select(data=["digits"])
    assert {e.data for e in digits} == {"digits"}
    assert len(digits) == sum(e.data == "cifar10" for e in GRID)
    both = select(only=["fig16"], model=["resnet18"], data=["folder", "cifar100"])
    assert [e.data for e in both] == ["cifar100", "folder"]


def test_another_network_takes_the_place_of_resnet18():
    found = select(model=["mlp"], data=["digits"])
    assert {e.model for e in found} == {"mlp"}
    assert {e.experiment for e in found} == {
        e.experiment for e in GRID if e.model == "resnet18"
    }


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"only": ["fig15"]}, "only must be one of fig2.*'fig15'"),
        ({"model": ["resnet50"]}, "model must be one of .*'resnet50'"),
        ({"data": ["mnist"]}, "data must be one of .*'mnist'"),
        ({"only": ["fig14"], "data": ["cifar100"]}, "nothing in the grid has .*fig14"),
    ],
)
def test_what_is_not_there_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        select(**asked)


@pytest.mark.parametrize("entry", GRID, ids=str)
@pytest.mark.parametrize("profile", profiles.NAMES)
def test_every_entry_can_be_planned(entry, profile):
    settings = plan(entry, profile=profile).settings
    assert settings["subject"]["model"] == entry.model
    assert settings["seeds"] == [0, 1, 2]
    adversary = settings["subject"]["recipe"]["adversary"]
    assert (adversary is not None) == entry.adversarial


def test_cards_of_different_entries_have_different_files():
    stems = [plan(entry, profile="full").stem for entry in GRID]
    assert len(set(stems)) == len(stems)
