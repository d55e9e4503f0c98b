"""Jobs of a perceptron on digits, that a test can do in a second."""

import pytest

from flatbook import data
from flatbook.experiments._runner import Places
from flatbook.reproduce import Job, plan, select


@pytest.fixture(scope="session")
def digits():
    return data.digits()


@pytest.fixture
def job(tmp_path, digits):
    """How to make a job of an experiment in a folder of its own."""

    def make(only="gradient_masking", *, seeds=(0,), folder=tmp_path / "out"):
        (entry,) = select(only=[only], model=["mlp"], data=["digits"])
        places = Places(folder / "cards", folder / "work", progress=False)
        mine = plan(entry, profile="cpu", seeds=seeds, label="digits")
        return Job(mine, places, folder / "figures", digits.sha256)

    return make
