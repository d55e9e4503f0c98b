import dataclasses
import hashlib
import io
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from flatbook import data


def tiny(**changes):
    x, y = torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 1])
    fields = {"name": "tiny", "x_train": x, "y_train": y, "x_test": x, "y_test": y}
    return data.Dataset(**{**fields, "classes": ("a", "b"), **changes})


def write_folder(root, *, classes=("cat", "dog"), images=3, size=8):
    """A folder dataset of PNGs whose grey value counts the files."""
    count = 0
    for part in ("train", "test"):
        for name in classes:
            folder = root / part / name
            folder.mkdir(parents=True)
            for index in range(images):
                pixels = np.full((size, size, 3), count, np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
                count += 1
    return root


def test_digits_are_all_of_scikit_learns():
    from sklearn.datasets import load_digits

    raw = load_digits()
    rows = {
        (tuple(image.ravel()), label)
        for image, label in zip(raw.images, raw.target, strict=True)
    }
    got = data.digits()
    assert (len(got.y_train), len(got.y_test)) == (1297, 500)
    assert got.x_train.shape == (1297, 1, 8, 8)
    assert got.x_train.dtype == torch.float32
    x = (torch.cat([got.x_train, got.x_test]) * 16).flatten(1).double()
    y = torch.cat([got.y_train, got.y_test])
    assert {(tuple(i.tolist()), int(j)) for i, j in zip(x, y, strict=True)} == rows
    assert got.classes == tuple("0123456789")


def test_digits_split_is_stratified_and_seeded():
    first, again, other = data.digits(), data.digits(), data.digits(seed=1)
    assert first.sha256 == again.sha256 != other.sha256
    assert not torch.equal(first.x_test, other.x_test)
    total = (first.y_train.bincount() + first.y_test.bincount()).double()
    assert (first.y_test.bincount() - total * 500 / 1797).abs().max() < 1
    assert torch.equal(first.y_test.bincount(), other.y_test.bincount())
    assert len(first.y_test[:50].unique()) == 10


def test_larger_digits_repeat_the_pixels():
    small, large = data.digits(), data.digits(image_size=32)
    assert large.x_train.shape == (1297, 1, 32, 32)
    assert torch.equal(large.y_test, small.y_test)
    for dy in (0, 3):
        assert torch.equal(large.x_test[:, :, dy::4, 1::4], small.x_test)
    assert large.sha256 != small.sha256


def test_nothing_touches_the_global_rng():
    before = torch.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    data.load("digits", limit=3, seed=4)
    assert torch.equal(before, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()  # noqa: NPY002


def test_limit_keeps_that_many_of_each_class():
    full, part = data.digits(seed=2), data.load("digits", seed=2, limit=7)
    assert part.y_train.bincount().tolist() == [7] * 10
    assert part.y_test.bincount().tolist() == [7] * 10
    known = {tuple(image.flatten().tolist()) for image in full.x_train}
    assert all(tuple(image.flatten().tolist()) in known for image in part.x_train)
    assert part.sha256 == data.load("digits", seed=2, limit=7).sha256
    assert len(data.load("digits", limit=10_000).y_test) == 500


def test_checksum_is_of_shapes_images_labels_and_classes():
    first = tiny()
    digest = hashlib.sha256(b"('a', 'b')")
    for tensor in (first.x_train, first.y_train, first.x_test, first.y_test):
        digest.update(str(tuple(tensor.shape)).encode() + tensor.numpy().tobytes())
    assert first.sha256 == digest.hexdigest()
    changed = first.x_test.clone()
    changed[2, 0, 7, 7] = 0.5
    others = [
        tiny(x_test=changed),
        tiny(y_train=torch.tensor([0, 1, 0])),
        tiny(classes=("a", "c")),
    ]
    assert len({first.sha256, *(other.sha256 for other in others)}) == 4
    assert dataclasses.replace(first, x_test=changed).sha256 == others[0].sha256


def test_description():
    got = data.digits()
    assert (got.num_classes, got.in_channels, got.image_size) == (10, 1, 8)
    assert "1297 train, 500 test, 10 classes, 1x8x8" in repr(got)
    assert len(repr(got)) < 100


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"x_train": np.zeros((3, 1, 8, 8))}, TypeError, "x_train.*float64"),
        ({"x_test": torch.zeros(3, 1, 8, 8).byte()}, TypeError, "x_test.*uint8"),
        ({"x_train": torch.zeros(3, 8, 8)}, ValueError, r"x_train.*\(3, 8, 8\)"),
        ({"x_train": torch.zeros(3, 1, 8, 9)}, ValueError, r"\(3, 1, 8, 9\)"),
        ({"x_train": torch.zeros(0, 1, 8, 8)}, ValueError, r"\(0, 1, 8, 8\)"),
        ({"x_test": torch.zeros(3, 1, 9, 9)}, ValueError, r"\(1, 9, 9\)"),
        ({"x_train": torch.full((3, 1, 8, 8), 1.5)}, ValueError, r"x_train.*1\.5"),
        ({"x_train": torch.full((3, 1, 8, 8), -0.5)}, ValueError, r"-0\.5"),
        ({"x_test": torch.full((3, 1, 8, 8), torch.nan)}, ValueError, "nan"),
        ({"y_train": torch.tensor([0, 1])}, ValueError, r"y_train.*\(3,\).*\(2,\)"),
        ({"y_train": torch.tensor([0, 1, 2])}, ValueError, r"0 \.\. 1.*2"),
        ({"y_test": torch.tensor([0, 1, -1])}, ValueError, "y_test.*-1"),
        ({"y_test": torch.zeros(3)}, TypeError, "y_test.*float32"),
        ({"classes": ("a",)}, ValueError, "classes.*'a'"),
        ({"classes": ("a", "a")}, ValueError, "classes.*'a', 'a'"),
    ],
)
def test_dataset_names_what_is_wrong(changes, error, said):
    with pytest.raises(error, match=said):
        tiny(**changes)


@pytest.mark.parametrize("size", [0, 7, 12, 8.0, "8"])
def test_digits_name_a_bad_size(size):
    with pytest.raises(ValueError, match=f"multiple of 8.*{size}"):
        data.digits(image_size=size)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "mnist"}, "mnist"),
        ({"name": "digits", "limit": 0}, "limit.*0"),
        ({"name": "digits", "limit": 2.5}, r"limit.*2\.5"),
        ({"name": "folder", "root": ".", "image_size": -3}, "image_size.*-3"),
        ({"name": "folder"}, "root"),
    ],
)
def test_load_names_what_is_wrong(arguments, said):
    with pytest.raises(ValueError, match=said):
        data.load(**arguments)


def test_folder(tmp_path):
    got = data.load("folder", root=write_folder(tmp_path))
    assert got.classes == ("cat", "dog")
    assert got.x_train.shape == (6, 3, 8, 8)
    assert got.x_train.is_contiguous()
    grey = (got.x_train[:, 0, 0, 0] * 255).round().long()
    assert sorted(grey.tolist()) == list(range(6))
    assert torch.equal(got.y_train, grey // 3)
    grey = (got.x_test[:, 2, 7, 7] * 255).round().long()
    assert torch.equal(got.y_test, (grey - 6) // 3)
    again = data.load("folder", root=str(tmp_path))
    other = data.load("folder", root=tmp_path, seed=1)
    assert got.sha256 == again.sha256 != other.sha256


def test_folder_limit_and_resize(tmp_path):
    write_folder(tmp_path, images=5)
    got = data.load("folder", root=tmp_path, limit=2, image_size=12)
    assert got.x_train.shape == (4, 3, 12, 12)
    assert got.y_train.bincount().tolist() == [2, 2]
    assert got.y_test.bincount().tolist() == [2, 2]
    flat = got.x_test.flatten(1)
    torch.testing.assert_close(flat, flat[:, :1].expand_as(flat))


def test_folder_decodes_jpeg_and_grey(tmp_path):
    write_folder(tmp_path, size=16)
    ramp = np.linspace(0, 255, 256).astype(np.uint8).reshape(16, 16)
    for name in ("train/cat/0.png", "train/cat/1.png", "train/cat/2.png"):
        (tmp_path / name).unlink()
    Image.fromarray(ramp).save(tmp_path / "train/cat/0.jpg", quality=95)
    got = data.load("folder", root=tmp_path)
    image = got.x_train[got.y_train == 0]
    expected = torch.tensor(ramp / 255, dtype=torch.float32).expand(1, 3, 16, 16)
    torch.testing.assert_close(image, expected, atol=0.03, rtol=0)


def test_folder_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere/train is missing: expected"):
        data.load("folder", root=tmp_path / "nowhere")
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"test is missing: expected"):
        data.load("folder", root=tmp_path)


def test_folder_without_classes(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    with pytest.raises(FileNotFoundError, match="train"):
        data.load("folder", root=tmp_path)


def test_folder_with_one_class(tmp_path):
    with pytest.raises(ValueError, match=r"train must hold two.*cat"):
        data.load("folder", root=write_folder(tmp_path, classes=("cat",)))


def test_folder_with_other_classes_in_the_test(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "fox")
    with pytest.raises(ValueError, match=r"train and .*test.*dog, fox"):
        data.load("folder", root=tmp_path)


def test_folder_with_an_empty_class(tmp_path):
    write_folder(tmp_path)
    for file in (tmp_path / "test" / "dog").iterdir():
        file.rename(file.with_suffix(".txt"))
    with pytest.raises(FileNotFoundError, match=r"test/dog holds no image"):
        data.load("folder", root=tmp_path)


def test_folder_with_unequal_sizes(tmp_path):
    write_folder(tmp_path)
    odd = tmp_path / "train" / "dog" / "1.png"
    Image.new("RGB", (9, 9)).save(odd)
    with pytest.raises(ValueError, match=r"train/.*9x9 pixels|train/dog/1.png"):
        data.load("folder", root=tmp_path)


def test_folder_with_an_oblong_image(tmp_path):
    write_folder(tmp_path)
    Image.new("RGB", (9, 7)).save(tmp_path / "train" / "dog" / "1.png")
    with pytest.raises(ValueError, match=r"train/dog/1.png must be square, got 9x7"):
        data.load("folder", root=tmp_path)


@pytest.mark.parametrize("damage", ["text", "empty", "cut"])
def test_folder_with_an_undecodable_file(tmp_path, damage):
    write_folder(tmp_path)
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    content = {"text": b"not an image", "empty": b"", "cut": buffer.getvalue()[:99]}
    (tmp_path / "test" / "cat" / "2.png").write_bytes(content[damage])
    with pytest.raises(ValueError, match=r"test/cat/2.png cannot be decoded"):
        data.load("folder", root=tmp_path)


def test_only_images_are_decoded(tmp_path):
    """A program in PostScript with the name of an image reaches no interpreter."""
    write_folder(tmp_path)
    path = tmp_path / "test" / "cat" / "2.png"
    Image.new("RGB", (8, 8)).save(path, "EPS")
    with Image.open(path) as image:
        assert image.format == "EPS"  # Pillow itself would start Ghostscript
    with pytest.raises(ValueError, match=r"test/cat/2.png.*cannot identify image"):
        data.load("folder", root=tmp_path)


def bomb(side):
    """A PNG of a few bytes whose header promises side x side pixels."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    raw = bytearray(buffer.getvalue())
    raw[16:24] = side.to_bytes(4, "big") * 2
    raw[29:33] = zlib.crc32(raw[12:29]).to_bytes(4, "big")
    return bytes(raw)


def test_bombs_are_refused_before_they_unfold(tmp_path):
    write_folder(tmp_path)
    path = tmp_path / "train" / "dog" / "1.png"
    for side, said in ((30_000, "cannot be decoded.*bomb"), (9_000, "9000x9000")):
        path.write_bytes(bomb(side))
        with pytest.raises(ValueError, match=f"train/dog/1.png.*{said}"):
            data.load("folder", root=tmp_path)


def test_folder_may_link_elsewhere_and_stays_as_it_is(tmp_path):
    write_folder(tmp_path / "far")
    whole = data.load("folder", root=tmp_path / "far").sha256
    (tmp_path / "near").mkdir()
    for part in ("train", "test"):
        (tmp_path / "near" / part).symlink_to(tmp_path / "far" / part)
    before = sorted(tmp_path.rglob("*"))
    assert data.load("folder", root=tmp_path / "near").sha256 == whole
    assert sorted(tmp_path.rglob("*")) == before
