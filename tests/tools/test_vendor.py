"""Vendored scripts: only the reviewed packages, complete or not at all."""

import io
import json
import subprocess
import tarfile

import pytest

from tools import vendor

FILES = {"package/a.js": "lib/a.js", "package/fonts/": "lib/fonts/"}


def archive(path, names):
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 2
            tar.addfile(info, io.BytesIO(b"ok"))
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    wanted = tmp_path / "vendor.json"
    tarball = archive(tmp_path / "p.tgz", ["package/a.js", "package/fonts/f.woff"])
    entry = {"integrity": vendor.integrity(tarball), "files": FILES}
    wanted.write_text(json.dumps({"p@1.0.0": entry}))
    monkeypatch.setattr(vendor, "WANTED", wanted)
    monkeypatch.setattr(vendor, "TARGET", tmp_path / "site" / "vendor")
    monkeypatch.setattr(vendor, "fetch", lambda spec, folder: tarball)
    return tmp_path


def test_fill(place):
    assert vendor.main([]) == 0
    files = {
        p.relative_to(vendor.TARGET).as_posix() for p in vendor.TARGET.rglob("*.*")
    }
    assert files == {"lib/a.js", "lib/fonts/f.woff", "vendor.json"}
    assert vendor.complete(vendor.TARGET, vendor.WANTED)


def test_another_checksum_is_refused(place, capsys):
    wanted = json.loads(vendor.WANTED.read_text())
    wanted["p@1.0.0"]["integrity"] = "sha512-else"
    vendor.WANTED.write_text(json.dumps(wanted))
    assert vendor.main([]) == 1
    assert "p@1.0.0" in capsys.readouterr().out
    assert not vendor.TARGET.exists()


@pytest.mark.parametrize(
    "error", [FileNotFoundError("npm"), subprocess.CalledProcessError(1, "npm")]
)
def test_without_npm_one_line_says_so(place, monkeypatch, capsys, error):
    def fail(spec, folder):
        raise error

    monkeypatch.setattr(vendor, "fetch", fail)
    assert vendor.main([]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert not vendor.TARGET.exists()


def test_nothing_is_written_outside_its_folder(tmp_path):
    tarball = archive(tmp_path / "p.tgz", ["package/fonts/../../../evil.js"])
    with pytest.raises(vendor.ChecksumError, match="leaves"):
        vendor.unpack(tarball, FILES, tmp_path / "target")
    assert not (tmp_path / "evil.js").exists()
