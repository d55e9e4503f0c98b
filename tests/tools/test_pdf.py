"""Numbers of pages are right in the print that is kept, however lines break."""

import pytest

from tools import pdf


def prints(monkeypatch, layouts):
    """A page whose prints break as the layouts say, one after another."""
    told = []

    class Page:
        def evaluate(self, script, numbers=None):
            told.append(numbers) if script == pdf.NUMBERS else None
            return ["a"]

    layout = iter(layouts)
    monkeypatch.setattr(pdf, "printed", lambda page, final=True: b"%d" % next(layout))
    monkeypatch.setattr(pdf, "places", lambda whole: {"a": int(whole), "b": len(told)})
    return Page(), told


@pytest.mark.parametrize(
    ("layouts", "numbers"),
    [((3, 3), [3]), ((3, 4, 4), [3, 4]), ((3, 4, 3, 4), [3, 4])],
)
def test_numbers_are_those_of_the_last_print(monkeypatch, layouts, numbers):
    page, told = prints(monkeypatch, layouts)
    assert pdf.numbered(page) == b"%d" % layouts[-1]
    assert told == [{"a": number} for number in numbers]


def test_numbers_that_do_not_settle_are_refused(monkeypatch):
    page, _ = prints(monkeypatch, range(9))
    with pytest.raises(pdf.NotSetError, match="do not settle"):
        pdf.numbered(page)
