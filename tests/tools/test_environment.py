"""The environment is made once, completed when stale, made again when broken."""

import pytest

from tools import environment as env


@pytest.fixture
def root(tmp_path):
    for name in env.INPUTS:
        (tmp_path / name).write_text(name)
    python = env.interpreter(tmp_path)
    python.parent.mkdir(parents=True)
    python.touch()
    env.stamp(tmp_path).write_text(env.wanted(tmp_path))
    return tmp_path


def test_complete(root):
    assert env.state(root) == "complete"


@pytest.mark.parametrize("name", env.INPUTS)
def test_stale_when_a_requirement_changes(root, name):
    (root / name).write_text("new")
    assert env.state(root) == "stale"


def test_absent_when_half_made(root):
    env.stamp(root).unlink()
    assert env.state(root) == "absent"


def test_absent_when_its_python_is_gone(root):
    env.interpreter(root).unlink()
    assert env.state(root) == "absent"


def test_absent_when_made_with_another_python(root):
    text = env.stamp(root).read_text()
    env.stamp(root).write_text(text.replace("Python 3", "Python 2", 1))
    assert env.state(root) == "absent"
