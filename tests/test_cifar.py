import contextlib
import dataclasses
import hashlib
import http.server
import io
import os
import pickle
import signal
import sys
import tarfile
import threading

import numpy as np
import pytest
import torch

from flatbook import _cifar, data
from tests.trap import Trap

NAMES = {"cifar10": ("plane", "car"), "cifar100": ("apple", "bear", "cloud")}
COUNTS = (10, 4)


def content(name):
    """Members of a tiny archive in a shuffled order, and what should be read."""
    archive, rng = _cifar.ARCHIVES[name], np.random.default_rng(0)
    classes = NAMES[name]
    members, parts = {"a/readme.html": b"<p>"}, []
    for files, count in ((archive.train, COUNTS[0]), ((archive.test,), COUNTS[1])):
        labels = np.arange(count) % len(classes)
        images = rng.integers(0, 256, (count, 3, 32, 32), np.uint8)
        coarse = rng.integers(100, 200, (count, archive.fine), np.uint8)
        rows = np.hstack(
            [coarse, labels[:, None].astype(np.uint8), images.reshape(count, -1)]
        )
        pieces = np.split(rows, len(files))
        for file, piece in reversed(list(zip(files, pieces, strict=True))):
            members[file] = piece.tobytes()
        parts.append((labels, images))
    members[archive.names] = "\n".join([*classes, "", ""]).encode()
    return members, parts


def packed(members, links=()):
    """A tar.gz of members (name: bytes) and of links (name, type, target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, kind, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
        for name, raw in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return buffer.getvalue()


@pytest.fixture
def publish(monkeypatch):
    """Make bytes the published archive of a set, with tiny counts."""

    def function(name, raw, **changes):
        changes = {"counts": COUNTS, **changes}
        sha256 = hashlib.sha256(raw).hexdigest()
        archive = dataclasses.replace(_cifar.ARCHIVES[name], sha256=sha256, **changes)
        monkeypatch.setitem(_cifar.ARCHIVES, name, archive)
        return archive

    return function


@pytest.fixture
def place(tmp_path, publish):
    """Publish an archive and put it into a folder."""

    def function(name, members, links=()):
        raw = packed(members, links)
        path = tmp_path / "root" / publish(name, raw).file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(raw)
        return path

    return function


@contextlib.contextmanager
def serve(answer):
    """A server on this machine: `answer(handler)` replies to every request."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def send(handler, raw, length=None):
    handler.send_response(200)
    handler.send_header("Content-Length", str(length or len(raw)))
    handler.end_headers()
    handler.wfile.write(raw)


WRITTEN: list | None = None


def note_writing(event, arguments):
    if WRITTEN is None:
        return
    if event == "open" and isinstance(arguments[0], str):
        if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            WRITTEN.append(arguments[0])
    elif event in ("os.mkdir", "os.remove", "os.symlink", "os.link"):
        WRITTEN.append(arguments[0])
    elif event == "os.rename":
        WRITTEN.extend(arguments[:2])


@pytest.fixture(scope="module")
def hook():
    sys.addaudithook(note_writing)


@pytest.fixture
def written(hook, monkeypatch):
    """Every path that this process makes, writes, moves or removes."""
    monkeypatch.setattr(sys.modules[__name__], "WRITTEN", [])
    return WRITTEN


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_all_records_in_the_published_order(place, name):
    members, parts = content(name)
    path = place(name, members)
    classes, *got = _cifar.read(name, path.parent)
    assert classes == NAMES[name]
    for (labels, images), (expected_labels, expected_images) in zip(
        got, parts, strict=True
    ):
        assert labels.dtype == torch.int64
        assert labels.tolist() == expected_labels.tolist()
        assert images.dtype == np.uint8
        assert np.array_equal(images, expected_images)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_load_shuffles_labels_with_their_images(place, name):
    members, parts = content(name)
    root = place(name, members).parent
    got = data.load(name, root=root)
    assert got.classes == NAMES[name]
    assert got.x_train.shape == (10, 3, 32, 32)
    assert got.x_train.is_contiguous()
    known = {
        image.tobytes(): label
        for labels, images in parts
        for label, image in zip(labels, images, strict=True)
    }
    x = torch.cat([got.x_train, got.x_test]) * 255
    found = {
        image.round().byte().numpy().tobytes(): int(label)
        for image, label in zip(x, torch.cat([got.y_train, got.y_test]), strict=True)
    }
    assert found == known
    assert data.load(name, root=root, seed=1).sha256 != got.sha256
    few = data.load(name, root=str(root), limit=1, image_size=8)
    assert few.y_train.bincount().tolist() == [1] * len(NAMES[name])
    assert few.x_test.shape == (len(NAMES[name]), 3, 8, 8)


def test_same_data_as_torchvision_reads(tmp_path, place, monkeypatch):
    """The same pixels as pickled batches give the same dataset."""
    from torchvision.datasets import CIFAR10

    members, parts = content("cifar10")
    root = place("cifar10", members).parent
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    files = [*(name for name, _ in CIFAR10.train_list), CIFAR10.test_list[0][0]]
    (labels, images), (test_labels, test_images) = parts
    pieces = [*zip(np.split(labels, 5), np.split(images, 5), strict=True)]
    for file, (y, x) in zip(files, [*pieces, (test_labels, test_images)], strict=True):
        batch = {"data": x.reshape(len(x), -1), "labels": y.tolist()}
        (folder / file).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(
        pickle.dumps({"label_names": list(NAMES["cifar10"])})
    )
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    twins = [CIFAR10(tmp_path, train=train) for train in (True, False)]
    for (labels, images), twin in zip(
        _cifar.read("cifar10", root)[1:], twins, strict=True
    ):
        assert labels.tolist() == twin.targets
        assert np.array_equal(images.transpose(0, 2, 3, 1), twin.data)
    assert _cifar.read("cifar10", root)[0] == tuple(twins[0].classes)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_absent_archive_says_where_it_looked_and_what_to_do(tmp_path, name):
    file = name.replace("cifar", "cifar-") + "-binary.tar.gz"
    said = f"{name} is not at .*here: put https://.*/{file} there, or download=True"
    with pytest.raises(FileNotFoundError, match=said):
        data.load(name, root=tmp_path / "here")
    assert list(tmp_path.iterdir()) == []


def test_pickled_batches_are_named_and_not_read(tmp_path):
    folder, trace = tmp_path / "cifar-10-batches-py", tmp_path / "trace"
    folder.mkdir()
    for file in ("data_batch_1", "test_batch", "batches.meta"):
        (folder / file).write_bytes(pickle.dumps(Trap(trace)))
    with pytest.raises(FileNotFoundError, match=r"cifar-10-batches-py holds pickled"):
        data.load("cifar10", root=tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        data.load("cifar100", root=tmp_path)
    assert "holds" not in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize("damage", ["changed", "cut", "longer", "empty", "page"])
@pytest.mark.parametrize("download", [False, True])
def test_wrong_archive_is_refused_and_kept(place, damage, download):
    path = place("cifar10", content("cifar10")[0])
    raw = path.read_bytes()
    changed = bytearray(raw)
    changed[len(raw) // 2] ^= 1
    wrong = {
        "changed": bytes(changed),
        "cut": raw[:-1],
        "longer": raw + b"\0",
        "empty": b"",
        "page": b"<html>Not found</html>",
    }[damage]
    path.write_bytes(wrong)
    with pytest.raises(ValueError, match="SHA-256") as caught:
        data.load("cifar10", root=path.parent, download=download)
    for digest in (wrong, raw):
        assert hashlib.sha256(digest).hexdigest() in str(caught.value)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == wrong
    assert list(path.parent.iterdir()) == [path]


def test_the_hash_is_the_published_one(tmp_path):
    """A whole archive of the right form is not enough."""
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(packed(content("cifar10")[0]))
    with pytest.raises(ValueError, match="expected c4a38c50a1bc5f3a"):
        data.load("cifar10", root=tmp_path)
    path.rename(tmp_path / "cifar-100-binary.tar.gz")
    with pytest.raises(ValueError, match="expected 58a81ae192c23a4b"):
        data.load("cifar100", root=tmp_path)


@pytest.mark.parametrize("which", ["train", "test", "names"])
def test_missing_member(place, which):
    members, _ = content("cifar10")
    archive = _cifar.ARCHIVES["cifar10"]
    gone = {"train": archive.train[3], "test": archive.test, "names": archive.names}
    del members[gone[which]]
    path = place("cifar10", members)
    with pytest.raises(ValueError, match=f"no regular file '{gone[which]}'") as caught:
        data.load("cifar10", root=path.parent)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("change", [-1, 1])
def test_member_of_another_size(place, change):
    members, _ = content("cifar100")
    name = "cifar-100-binary/train.bin"
    members[name] = members[name][:change] if change < 0 else members[name] + b"\0"
    path = place("cifar100", members)
    said = f"{10 * 3074 + change} bytes, expected 10 records of 3074"
    with pytest.raises(ValueError, match=said):
        data.load("cifar100", root=path.parent)


def test_nothing_is_unpacked(tmp_path, place, written, monkeypatch):
    """Members that would leave the folder, or look like ours elsewhere, stay inside."""
    monkeypatch.chdir(tmp_path)
    members, parts = content("cifar10")
    strange = {
        "../evil": b"x",
        str(tmp_path / "evil"): b"x",
        "../cifar-10-batches-bin/test_batch.bin": b"x",
        "x/cifar-10-batches-bin/batches.meta.txt": b"x",
    }
    links = [("cifar-10-batches-bin/evil", tarfile.SYMTYPE, "/etc/passwd")]
    path = place("cifar10", {**members, **strange}, links)
    before = sorted(tmp_path.rglob("*"))
    written.clear()
    images = _cifar.read("cifar10", path.parent)[2][1]
    assert np.array_equal(images, parts[1][1])
    assert written == []
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_are_not_followed(place, kind):
    members, _ = content("cifar10")
    name = _cifar.ARCHIVES["cifar10"].test
    members["other"] = members.pop(name)
    path = place("cifar10", members, [(name, kind, "other")])
    with pytest.raises(ValueError, match=f"no regular file '{name}'"):
        data.load("cifar10", root=path.parent)


def test_download_is_kept_and_nothing_else_is_written(
    tmp_path, publish, written, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    members, parts = content("cifar10")
    raw, requests = packed(members), []

    def answer(handler):
        requests.append(handler.path)
        send(handler, raw)

    with serve(answer) as site:
        archive = publish("cifar10", raw, site=site)
        got = data.load("cifar10", root="~/new/folder", download=True)
        again = data.load("cifar10", root="~/new/folder", download=True)
    root = tmp_path / "~" / "new" / "folder"
    assert requests == ["/cifar-10-binary.tar.gz"]
    assert got.sha256 == again.sha256
    assert len(got.y_test) == len(parts[1][0])
    assert [path.name for path in root.iterdir()] == [archive.file]
    assert (root / archive.file).read_bytes() == raw
    paths = [tmp_path / path for path in written]
    assert len(paths) > 2
    assert all(root in (p, *p.parents) or p in root.parents for p in paths)


@pytest.mark.skipif(sys.platform == "win32", reason="signals have no thread there")
def test_interrupted_download_leaves_nothing(tmp_path, publish):
    raw, seen, over = packed(content("cifar10")[0]), [], threading.Event()

    def answer(handler):
        send(handler, raw[: len(raw) // 2], len(raw))
        seen.extend(path.name for path in tmp_path.iterdir())
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        over.wait(60)  # the connection stays open: nothing else ends the download

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with serve(answer) as site:
            archive = publish("cifar10", raw, site=site)
            with pytest.raises(KeyboardInterrupt):
                data.load("cifar10", root=tmp_path, download=True)
            over.set()
    finally:
        over.set()
        signal.signal(signal.SIGINT, before)
    assert seen  # half of it lay there, under another name
    assert archive.file not in seen
    assert list(tmp_path.iterdir()) == []


def missing(handler, _):
    handler.send_error(404)


def cut(handler, raw):
    send(handler, raw[:-5], len(raw))


def other(handler, raw):
    send(handler, raw[:-1] + b"\1")


def silent(handler, _):
    handler.connection.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (missing, "404"),
        (cut, "hash|Incomplete"),
        (other, "hash"),
        (silent, ""),
        (None, "refused"),
    ],
)
def test_failed_download_says_what_to_do(tmp_path, publish, answer, said):
    raw = packed(content("cifar10")[0])
    with serve(lambda handler: answer(handler, raw)) as site:
        archive = publish("cifar10", raw, site=site if answer else "http://127.0.0.1:1")
        with pytest.raises(OSError, match=f"could not be fetched: .*{said}") as caught:
            data.load("cifar10", root=tmp_path / "new", download=True)
    assert archive.url in str(caught.value)
    assert f"put it at {tmp_path / 'new' / archive.file}" in str(caught.value)
    assert list(tmp_path.rglob("*")) == [tmp_path / "new"]


def test_root_that_is_a_file(tmp_path, publish):
    archive = publish("cifar10", b"")
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(OSError, match=f"file/{archive.file}"):
        data.load("cifar10", root=tmp_path / "file", download=True)
    assert (tmp_path / "file").read_bytes() == b"mine"
