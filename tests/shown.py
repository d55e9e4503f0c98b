"""What the tests of figures share: is it drawn, and arrays that come from a file."""

from flatbook import results
from flatbook.experiments import _runner
from flatbook.figures import BookFigure


def shown(figure):
    """The same figure, which is the book's, shows itself and fits into a page."""
    assert isinstance(figure, BookFigure)
    data, size = figure._repr_png_()
    assert data.startswith(b"\x89PNG")
    assert size["width"] <= 700
    return figure


def letters(figure):
    """How the titles of the panels begin."""
    return "".join(axes.get_title(loc="left")[0] for axes in figure.axes)


def read_again(panels, folder):
    """Panels of several seeds, stacked and filed as a card's, and read again."""
    seeds = [{name: array.numpy() for name, array in one.items()} for one in panels]
    path, content = folder / "arrays.npz", results.pack(_runner.stack(seeds))
    results.write_whole(path, content)
    return results.unpack(path, results.hash_bytes(content))


def first_seed(arrays):
    """The same arrays, of one seed."""
    return {name: array[:1] for name, array in arrays.items()}
