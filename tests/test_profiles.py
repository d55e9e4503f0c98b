"""Profiles change settings, never names, and refuse what they do not know."""

import pytest

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


@pytest.mark.parametrize("name", profiles.NAMES)
def test_environment_chooses(monkeypatch, name):
    monkeypatch.setenv("FLATBOOK_PROFILE", f" {name.upper()} ")
    choice = profiles.choose(**SETTINGS)
    assert choice.profile == name
    assert vars(choice.settings) == SETTINGS[name]
    assert f"profile {name}: epochs={SETTINGS[name]['epochs']}" in repr(choice)


def test_unknown_profile_is_named(monkeypatch):
    monkeypatch.setenv("FLATBOOK_PROFILE", "gpu")
    with pytest.raises(ValueError, match="'gpu'.*'cpu', 't4', 'full'"):
        profiles.choose(**SETTINGS)


def test_profiles_set_the_same_names():
    with pytest.raises(ValueError, match=r"cpu and full .*\['augment'\]"):
        profiles.choose(**{**SETTINGS, "full": {**SETTINGS["full"], "augment": True}})


def test_choice_is_frozen():
    with pytest.raises(AttributeError):
        profiles.choose(**SETTINGS).profile = "full"
