"""The rehearsal of Colab: its versions, its report, and the first cell offline."""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tools import address, colab, contents, rehearsal

SHIPPED = ("flatbook", "results", "pyproject.toml", "README.md", "LICENSE")


# A pip that knows no network: for the public address it takes a local folder.
PIP = """#!/bin/sh
for word do
  shift
  test "$word" = "{public}" && word="{local}"
  set -- "$@" "$word"
done
exec {pip} "$@" {flags}
"""


@pytest.fixture
def repository(tmp_path):
    """What the public address gives, as if the working tree had been pushed."""
    place = tmp_path / "repository"
    place.mkdir()
    for name in SHIPPED:
        source = contents.ROOT / name
        if source.is_dir():
            hidden = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(source, place / name, ignore=hidden)
        else:
            shutil.copy(source, place)
    return place


@pytest.fixture
def python(tmp_path):
    """A new environment with all packages of this one but flatbook, and an offline pip.

    The packages are links, so that it is made in no time. Its pip takes the folder
    ``repository`` for the public address, and needs no git.
    """
    place = tmp_path / "environment"
    command = [sys.executable, "-m", "venv", "--without-pip", str(place)]
    subprocess.run(command, check=True)
    linked = tmp_path / "preinstalled"
    linked.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "flatbook" not in entry.name and entry.suffix != ".pth":
            (linked / entry.name).symlink_to(entry)
    found = place / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.check_output([found, "-c", code], text=True).strip()
    (Path(own) / "preinstalled.pth").write_text(str(linked))
    pip = place / "bin" / "pip"
    flags = "--no-index --no-build-isolation --disable-pip-version-check"
    pip.write_text(
        PIP.format(
            public=f"git+{address.stored()}.git",
            local=tmp_path / "repository",
            pip=f'"{found}" -m pip',
            flags=flags,
        )
    )
    pip.chmod(0o755)
    return found


LOOK = """
import json
import flatbook
from flatbook.experiments import _cards
cards = [path.name for path in _cards.FOLDER.glob("*.json")]
print(json.dumps({"from": flatbook.__file__, "cards": sorted(cards)}))
"""


def test_the_first_cell_installs_flatbook_once_and_nothing_else(
    python, repository, tmp_path
):
    pip = python.with_name("pip")
    calls = tmp_path / "calls"
    pip.write_text(pip.read_text().replace("exec", f'echo x >> "{calls}"\nexec'))
    before = rehearsal.snapshot(python)
    assert "flatbook" not in before["packages"]
    cell = rehearsal.setup_cell()
    assert len(cell.splitlines()) <= 3
    nb = rehearsal.notebook(cell, cell, LOOK)
    _, failure = rehearsal.run(nb, python, tmp_path)
    assert failure == ""
    said = json.loads(rehearsal.printed(nb))  # the cell itself says nothing
    assert said["from"].startswith(str(python.parent.parent))
    assert said["cards"] == sorted(p.name for p in repository.rglob("results/*.json"))
    assert said["cards"]
    assert colab.changed(before, python) == ""
    assert calls.read_text().split() == ["x"]


def test_the_first_cell_says_when_the_address_cannot_be_reached(python, tmp_path):
    nb = rehearsal.notebook(rehearsal.setup_cell(), LOOK)
    _, failure = rehearsal.run(nb, python, tmp_path)
    assert failure == "ModuleNotFoundError: No module named 'flatbook'"
    assert str(tmp_path / "repository") in rehearsal.printed(nb)  # in the words of pip


def test_git_takes_the_address_of_the_first_cell_for_a_checkout():
    found = rehearsal.redirected(Path("/here"))
    assert found["GIT_CONFIG_KEY_0"] == "url.file:///here.insteadOf"
    words = rehearsal.setup_cell().replace('"', " ").split()
    assert f"git+{found['GIT_CONFIG_VALUE_0']}" in words


def test_elsewhere_the_first_cell_does_nothing():
    class Jupyter:
        pass

    exec(rehearsal.setup_cell(), {"get_ipython": Jupyter})


def test_changes_are_seen(monkeypatch):
    def after(packages, torch="a"):
        seen = {"packages": packages, "torch": torch}
        monkeypatch.setattr(rehearsal, "snapshot", lambda python: seen)
        return colab.changed({"packages": {"torch": "2"}, "torch": "a"}, None)

    assert after({"torch": "2", "flatbook": "1"}) == ""
    assert "was not installed" in after({"torch": "2"})
    assert "files of torch" in after({"torch": "2", "flatbook": "1"}, torch="b")
    assert "changed: torch" in after({"torch": "3", "flatbook": "1"})
    assert "changed: tqdm" in after({"torch": "2", "flatbook": "1", "tqdm": "4"})


def test_a_failed_cell_is_named(tmp_path):
    nb = rehearsal.notebook("print('here')", "1 / 0")
    _, failure = rehearsal.run(nb, Path(sys.executable), tmp_path)
    assert failure == "ZeroDivisionError: division by zero"
    assert rehearsal.printed(nb) == "here\n"


FIGURE = """
from flatbook.explorer import Chart, View, explore

def view(a, name):
    chart = Chart({"a": ([0, 1], [0, FOLLOWS])}, "x", "y", xlim=(0, 1), ylim=(0, 9))
    return View([chart], numbers={"name": name})

explore(view, alt="{name}", a=[1, 2, 3], name=["one", "two"])
"""


@pytest.mark.parametrize(("follows", "stuck"), [("a", ""), ("1", "['a']")])
def test_sliders_are_moved(tmp_path, follows, stuck):
    figure = FIGURE.replace("FOLLOWS", follows)
    nb = rehearsal.notebook(figure, rehearsal.MOVE)
    _, failure = rehearsal.run(nb, Path(sys.executable), tmp_path)
    if stuck:
        assert failure.endswith(f"the figure stays when these move: {stuck}")
    else:
        assert failure == ""
    assert ("sliders moved: 2" in rehearsal.printed(nb)) == (not stuck)


def test_ranges_are_those_of_the_package(tmp_path):
    found = colab.ranges()
    assert {"torch", "numpy", "torchvision", "sympy", "ipywidgets"} <= set(found)
    text = (contents.ROOT / "pyproject.toml").read_text(encoding="utf8")
    odd = text.replace('"numpy>=', '"numpy==')
    (tmp_path / "pyproject.toml").write_text(odd, encoding="utf8")
    with pytest.raises(ValueError, match="expected name>=version, got 'numpy=="):
        colab.ranges(tmp_path)


def test_versions_of_each_environment():
    oldest, newest = (colab.wanted(name, colab.COLAB) for name in ("oldest", "newest"))
    assert f"torch=={colab.ranges()['torch']}" in oldest
    assert "ipython==7.34.0" in oldest
    assert not any("=" in line for line in newest)
    listed = colab.pins("torch==9.9+cu1\nnotorch==1\n", colab.COLAB)
    assert "torch==9.9" in colab.wanted("colab", colab.COLAB | listed)


def test_colab_is_within_the_ranges():
    def number(version):
        return [int(part) for part in version.split(".")]

    for name, smallest in colab.ranges().items():
        assert number(colab.COLAB[name]) >= number(smallest), name


def test_without_its_list_the_stored_versions_are_taken(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    assert colab.published() == colab.COLAB


def test_failures_decide_the_exit_status(monkeypatch, capsys):
    def rows(name, paths, *, static):
        assert [path.stem for path in paths] == ["intro"]
        yield colab.Row(name, "intro", 1.0)
        yield colab.Row(name, "first cell", 1.0, "torch" if name == "newest" else "")

    monkeypatch.setattr(colab, "rows", rows)
    assert colab.main(["oldest", "colab", "--only", "intro"]) == 0
    assert "all passed" in capsys.readouterr().out
    assert colab.main(["--only", "intro"]) == 1
    assert "1 failed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        colab.main(["--only", "no_such_chapter"])
