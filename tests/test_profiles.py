"""Profiles change settings, never names, and refuse what they do not know."""

import sys
from types import ModuleType

import pytest
import torch

from flatbook import profiles

SETTINGS = {
    "cpu": {"epochs": 2, "seeds": (0,)},
    "t4": {"epochs": 30, "seeds": (0, 1)},
    "full": {"epochs": 200, "seeds": (0, 1, 2)},
}


def test_default_is_cpu(monkeypatch):
    monkeypatch.delenv("FLATBOOK_PROFILE", raising=False)
    assert profiles.current() == "cpu"
    monkeypatch.setenv("FLATBOOK_PROFILE", "")
    assert profiles.current() == "cpu"


@pytest.mark.parametrize("colab", [True, False])
@pytest.mark.parametrize("gpu", [True, False])
def test_default_on_colab_with_a_gpu_is_t4(monkeypatch, colab, gpu):
    monkeypatch.delenv("FLATBOOK_PROFILE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    assert profiles.current() == ("t4" if colab and gpu else "cpu")
    monkeypatch.setenv("FLATBOOK_PROFILE", "full")
    assert profiles.current() == "full"


@pytest.mark.parametrize("name", profiles.NAMES)
def test_environment_chooses(monkeypatch, name):
    monkeypatch.setenv("FLATBOOK_PROFILE", f" {name.upper()} ")
    choice = profiles.choose(**SETTINGS)
    assert choice.profile == name
    expected = SETTINGS.get(name, SETTINGS["full"])
    assert vars(choice.settings) == expected
    assert f"profile {name}: epochs={expected['epochs']}" in repr(choice)


def test_unknown_profile_is_named(monkeypatch):
    monkeypatch.setenv("FLATBOOK_PROFILE", "gpu")
    with pytest.raises(ValueError, match="'gpu'.*'cpu', 't4',.* 'full'"):
        profiles.choose(**SETTINGS)


def test_profiles_set_the_same_names():
    with pytest.raises(ValueError, match=r"cpu and full .*\['augment'\]"):
        profiles.choose(**{**SETTINGS, "full": {**SETTINGS["full"], "augment": True}})


def test_fast_is_full_where_nothing_else_is_said(monkeypatch):
    monkeypatch.setenv("FLATBOOK_PROFILE", "fast")
    assert vars(profiles.choose(**SETTINGS).settings) == SETTINGS["full"]
    fast = {"epochs": 31, "seeds": (0,)}
    assert vars(profiles.choose(**SETTINGS, fast=fast).settings) == fast
    with pytest.raises(ValueError, match=r"cpu and fast .*\['seeds'\]"):
        profiles.choose(**SETTINGS, fast={"epochs": 31})


def test_choice_is_frozen():
    with pytest.raises(AttributeError):
        profiles.choose(**SETTINGS).profile = "full"
