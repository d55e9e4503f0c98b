"""The foot of a theorem is read from its tests, and refuses tests that say nothing."""

import pytest

from tools import theorems

GOOD = '''
import pytest

def helper(): ...

@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.random
def test_many(k):
    """600 cases,
    and <more>.

    Not for the page.
    """

@pytest.mark.needed
def test_without():
    """Without it, no."""
'''


@pytest.fixture
def root(tmp_path):
    (tmp_path / "tests" / "theorems").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(
        '[project.urls]\nRepository = "https://github.com/a/b"\n'
    )
    return tmp_path


def write(root, text):
    theorems.path("thm-x", root).write_text(text)


def test_sentences_by_kind(root):
    write(root, GOOD)
    assert theorems.path("thm-x", root).name == "test_thm_x.py"
    assert theorems.checks("thm-x", root) == {
        "random": ["600 cases, and <more>."],
        "needed": ["Without it, no."],
    }


def test_foot_counts_escapes_and_links(root):
    write(root, GOOD)
    foot = theorems.foot("thm-x", root)
    assert "Checked by 2 tests" in foot
    assert "<dt>Random cases</dt><dd>600 cases, and &lt;more&gt;.</dd>" in foot
    assert "https://github.com/a/b/blob/main/tests/theorems/test_thm_x.py" in foot


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@pytest.mark.needed", "", "test_without needs one marker of random"),
        ("@pytest.mark.needed", "@pytest.mark.random\n@pytest.mark.needed", "one"),
        ("Without it, no.", "Without it", "test_without needs a sentence"),
        ('"""Without it, no."""', "pass", "test_without needs a sentence"),
    ],
)
def test_tests_that_say_nothing_are_refused(root, old, new, message):
    write(root, GOOD.replace(old, new))
    with pytest.raises(ValueError, match=message):
        theorems.checks("thm-x", root)
