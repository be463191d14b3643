"""Files and tape: whole or not there, never outside the root, confirmed by the storage's own reading."""

import tarfile
import zlib

import pytest

from prodsys_core.ports import Accepted, Broken, NotThere, Refused, Stored, Unavailable, UnderWay
from prodsys_core.storage import DirectoryTape, DropboxTape, OutsideRoot, SiteFilesystem, below
from simulators.storage.model import TapeRules
from simulators.storage.tape import Tape


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.root"
    path.write_bytes(b"content")
    return path


STORED = Stored(7, f"{zlib.adler32(b'content'):08x}")


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "link/x"])
def test_nothing_outside_the_root(tmp_path, path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(OutsideRoot):
        below(str(root), path)


def test_removal_is_refused_outside_the_root(tmp_path, source):
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(OutsideRoot):
        SiteFilesystem(str(root)).remove([str(source)])
    assert source.exists()


def test_directory_keeps_and_confirms_by_reading(tmp_path, source):
    tape = DirectoryTape(str(tmp_path / "tape"))
    assert tape.confirm("d/f") == NotThere()
    assert tape.put(str(source), "d/f") == Accepted()
    assert tape.put(str(source), "d/f") == Accepted()
    assert tape.confirm("d/f") == STORED


def test_other_content_under_the_name_is_refused(tmp_path, source):
    tape = DirectoryTape(str(tmp_path / "tape"))
    tape.put(str(source), "f")
    source.write_bytes(b"other")
    assert isinstance(tape.put(str(source), "f"), Refused)
    assert tape.confirm("f") == STORED


def test_missing_source_leaves_nothing(tmp_path):
    tape = DirectoryTape(str(tmp_path / "tape"))
    assert isinstance(tape.put(str(tmp_path / "no"), "d/f"), Unavailable)
    assert not [path for path in (tmp_path / "tape").rglob("*") if path.is_file()]


def test_dropbox_is_confirmed_by_the_tapes_receipt_only(tmp_path, source):
    box, tape = DropboxTape(str(tmp_path / "t")), Tape(tmp_path / "t", TapeRules(10))
    assert box.put(str(source), "d/f") == Accepted()
    tape.step(0)
    assert box.confirm("d/f") == UnderWay()
    tape.step(10)
    assert box.confirm("d/f") == STORED
    assert box.put(str(source), "d/f") == Accepted()
    assert not (tmp_path / "t/incoming/d/f").exists()


def test_lost_file_is_not_there_and_can_be_put_again(tmp_path, source):
    box, tape = DropboxTape(str(tmp_path / "t")), Tape(tmp_path / "t", TapeRules(0, lose=("*",)))
    box.put(str(source), "f")
    tape.step(0)
    assert box.confirm("f") == NotThere()
    box.put(str(source), "f")
    tape.step(1)
    assert box.confirm("f") == STORED


def test_shortened_file_is_told_by_its_receipt(tmp_path, source):
    box, tape = DropboxTape(str(tmp_path / "t")), Tape(tmp_path / "t", TapeRules(0, shorten=("*",)))
    box.put(str(source), "f")
    tape.step(0)
    assert box.confirm("f") == Stored(6, f"{zlib.adler32(b'conten'):08x}")


def test_tape_that_ended_before_the_receipt_gives_it_later(tmp_path, source):
    tape = Tape(tmp_path / "t", TapeRules(0))
    (tmp_path / "t/tape/f").write_bytes(b"content")
    tape.step(0)
    assert DropboxTape(str(tmp_path / "t")).confirm("f") == STORED


def test_torn_receipt_is_broken(tmp_path):
    receipts = tmp_path / "receipts"
    receipts.mkdir()
    (receipts / "f.json").write_text('{"size": 7')
    assert isinstance(DropboxTape(str(tmp_path)).confirm("f"), Broken)


def test_pack_holds_what_is_there_under_its_names(tmp_path):
    for name in ("a.tgz", "b.tgz"):
        (tmp_path / name).write_bytes(name.encode())
    members = [str(tmp_path / name) for name in ("a.tgz", "b.tgz", "gone.tgz")]
    packed = SiteFilesystem(str(tmp_path)).pack(str(tmp_path / "l/p.tar"), members)
    assert isinstance(packed, Stored)
    with tarfile.open(tmp_path / "l/p.tar") as archive:
        assert archive.getnames() == ["a.tgz", "b.tgz"]
    assert [path.name for path in (tmp_path / "l").iterdir()] == ["p.tar"]
