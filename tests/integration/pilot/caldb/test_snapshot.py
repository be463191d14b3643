"""Snapshots: built from a dump, and refused when anything about them is wrong."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
from snapkit import DUMP, PROBE, no_server, write_dump

from pilot.caldb import cli, template
from pilot.caldb.snapshot import build_snapshot, check_snapshot, description_path, read_snapshot
from pilot.caldb.template import BadSnapshot

pytestmark = pytest.mark.skipif(no_server, reason="mariadbd is not installed")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    directory = tmp_path_factory.mktemp("good")
    return build_snapshot(
        write_dump(directory), directory / "calib.tar", identity="cal-1", probe_sql=PROBE, run_range=(1, 9)
    )


@pytest.fixture
def copy(good, tmp_path):
    """A copy of the good snapshot that a test may damage."""
    path = tmp_path / "calib.tar"
    path.write_bytes(Path(good.path).read_bytes())
    description_path(path).write_text(description_path(Path(good.path)).read_text())
    return path


def describe(path, **changes):
    import hashlib

    body = json.loads(description_path(path).read_text())
    body["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    description_path(path).write_text(json.dumps({**body, **changes}))


def test_good_snapshot_is_described_and_accepted(good):
    assert check_snapshot(good.path) == good
    assert (good.probe["expect"], good.run_range, good.source) == ("4", (1, 9), "calibrations.sql")
    with tarfile.open(good.path) as tar:
        assert all(member.uid == 0 and member.mtime == 0 for member in tar)


@pytest.mark.parametrize("backend", ["mariadb", "sqlite"])
def test_content_is_the_dump(backend, tmp_path):
    snapshot = build_snapshot(
        write_dump(tmp_path),
        tmp_path / "calib",
        identity="x",
        probe_sql="SELECT hex(data) FROM calib_payload WHERE payload_id = 2",
        backend=backend,
    )
    assert snapshot.probe["expect"] == "00FF2764"
    check_snapshot(snapshot.path)


def test_wrong_checksum_is_refused(copy):
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")
    with pytest.raises(BadSnapshot, match="checksum"):
        check_snapshot(copy)


def test_truncated_snapshot_is_refused(copy):
    copy.write_bytes(copy.read_bytes()[:30000])
    describe(copy)
    with pytest.raises(BadSnapshot, match=r"damaged|truncated"):
        check_snapshot(copy)


def test_missing_probe_row_is_refused(copy):
    describe(copy, probe={"sql": "SELECT size FROM calib_payload WHERE payload_id = 77", "expect": "4"})
    with pytest.raises(BadSnapshot, match="the probe row is missing"):
        check_snapshot(copy)


def test_writable_account_is_refused(copy, monkeypatch):
    from pilot.caldb import template

    real = template._one_account

    def writable(connection):
        real(connection)
        connection.rows("GRANT INSERT ON calib.* TO calib@'%'")

    monkeypatch.setattr(template, "_one_account", writable)
    path = copy.with_name("writable.tar")
    dump = write_dump(copy.parent)
    build_snapshot(dump, path, identity="x", probe_sql=PROBE)
    with pytest.raises(BadSnapshot, match="Insert_priv, Select_priv on calib"):
        check_snapshot(path)


def test_a_member_outside_is_refused(copy):
    with tarfile.open(copy, "a") as tar:
        tar.addfile(tarfile.TarInfo("../escaped"))
    describe(copy)
    with pytest.raises(BadSnapshot, match="outside its directory"):
        check_snapshot(copy)


def test_copies_are_the_same_and_one_that_differs_is_refused(tmp_path):
    built = build_snapshot(
        write_dump(tmp_path), tmp_path / "c", identity="x", probe_sql=PROBE, backend="sqlite", copies=3
    )
    names = ["c", "c.2", "c.3"]
    assert {(tmp_path / name).read_bytes() for name in names} == {Path(built.path).read_bytes()}
    assert check_snapshot(built.path) == built
    (tmp_path / "c.3").chmod(0o600)
    (tmp_path / "c.3").write_bytes(b"x")
    with pytest.raises(BadSnapshot, match=r"c\.3: differs"):
        check_snapshot(built.path)
    (tmp_path / "c.3").unlink()
    with pytest.raises(BadSnapshot, match=r"c\.3"):
        check_snapshot(built.path)
    with pytest.raises(BadSnapshot, match=r"c\.2: exists already"):
        (tmp_path / "c").unlink()
        build_snapshot(
            write_dump(tmp_path), tmp_path / "c", identity="x", probe_sql=PROBE, backend="sqlite", copies=2
        )


def test_copies_of_a_build_that_fails_do_not_stay(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pilot.caldb.snapshot.os.link", full)
    (tmp_path / "out").mkdir()
    with pytest.raises(BadSnapshot, match="No space left"):
        build_snapshot(
            write_dump(tmp_path),
            tmp_path / "out" / "c",
            identity="x",
            probe_sql=PROBE,
            backend="sqlite",
            copies=3,
        )
    monkeypatch.undo()
    real, calls = os.link, []

    def full_later(source, target):
        calls.append(target)
        return real(source, target) if len(calls) < 3 else full(source, target)

    monkeypatch.setattr("pilot.caldb.snapshot.os.link", full_later)
    with pytest.raises(BadSnapshot, match="No space left"):
        build_snapshot(
            write_dump(tmp_path),
            tmp_path / "out" / "c",
            identity="x",
            probe_sql=PROBE,
            backend="sqlite",
            copies=3,
        )
    assert len(calls) == 3
    assert list((tmp_path / "out").iterdir()) == []


def test_a_snapshot_with_its_server_is_checked_by_that_server(tmp_path):
    built = build_snapshot(
        write_dump(tmp_path), tmp_path / "c", identity="x", probe_sql=PROBE, own_server=True
    )
    with tarfile.open(built.path) as tar:
        names = tar.getnames()
    assert names[0].startswith("server/")
    assert {"server/loader", "server/mariadbd", "server/share/charsets/Index.xml"} <= set(names)
    assert check_snapshot(built.path, server="/nowhere/mariadbd") == built


def test_only_a_mariadb_snapshot_has_a_server_inside(tmp_path):
    with pytest.raises(BadSnapshot, match="mariadb snapshot only"):
        build_snapshot(
            write_dump(tmp_path),
            tmp_path / "c",
            identity="x",
            probe_sql=PROBE,
            backend="sqlite",
            own_server=True,
        )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it makes no table"),
        ("CREATE TABLE other (k INT);\n", "error 1146: Table 'calib.calib_payload'"),
        ("CREATE DATABASE own;\nUSE own;\n" + DUMP, "in a database of its own, own: .*without --databases"),
        (DUMP + f"CREATE DEFINER=`a`@`b` VIEW v AS {PROBE};\n", "view v has the rights of a@b"),
        (DUMP + "INSERT INTO nowhere VALUES (1);\n", "line 14: error 1146"),
        (DUMP + "INSERT INTO calib_iov", "ends inside the statement"),
        (None, "No such file"),
    ],
)
def test_bad_dump_leaves_nothing(tmp_path, monkeypatch, text, words):
    short = tempfile.TemporaryDirectory(dir="/dev/shm")
    monkeypatch.setattr(tempfile, "tempdir", short.name)
    source = write_dump(tmp_path, text) if text is not None else tmp_path / "nowhere.sql"
    (tmp_path / "out").mkdir()
    with pytest.raises(BadSnapshot, match=words):
        build_snapshot(source, tmp_path / "out" / "calib.tar", identity="x", probe_sql=PROBE)
    assert list((tmp_path / "out").iterdir()) == []
    with short:
        assert list(Path(short.name).iterdir()) == []


def test_wrong_expectation_is_refused_at_building(tmp_path):
    with pytest.raises(BadSnapshot, match="answered '4', expected '5'"):
        build_snapshot(
            write_dump(tmp_path),
            tmp_path / "c",
            identity="x",
            probe_sql=PROBE,
            probe_expect="5",
            backend="sqlite",
        )


def test_a_view_that_asks_with_the_rights_of_its_reader_is_taken(tmp_path):
    dump = write_dump(tmp_path, DUMP + f"CREATE SQL SECURITY INVOKER VIEW v AS {PROBE};\n")
    build_snapshot(dump, tmp_path / "c", identity="x", probe_sql="SELECT size FROM v")
    assert check_snapshot(tmp_path / "c").probe["expect"] == "4"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"run_range": (9, 1)}, "runs: .* found 9 and 1"),
        ({"run_range": (-1, 1)}, "runs: .* found -1 and 1"),
        ({"identity": " "}, "identity: expected a name"),
        ({"identity": "one\ntwo"}, "identity: expected a name"),
    ],
)
def test_what_covers_nothing_or_has_no_name_is_refused(tmp_path, more, words):
    with pytest.raises(BadSnapshot, match=words):
        build_snapshot(write_dump(tmp_path), tmp_path / "c", **{"identity": "x", "probe_sql": PROBE, **more})


def test_a_server_that_hangs_is_named(tmp_path, monkeypatch):
    share = tmp_path / "share" / "mysql"
    (share / "charsets").mkdir(parents=True)
    for name in ("charsets/Index.xml", "mysql_system_tables.sql"):
        (share / name).touch()
    hanging = tmp_path / "bin" / "mariadbd"
    hanging.parent.mkdir()
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o700)
    monkeypatch.setattr(template, "START_S", 0.2)
    with pytest.raises(BadSnapshot, match="timed out"):
        build_snapshot(
            write_dump(tmp_path), tmp_path / "c", identity="x", probe_sql=PROBE, server=str(hanging)
        )


def test_a_snapshot_without_its_description_is_named(tmp_path):
    with pytest.raises(BadSnapshot, match=r"c\.json: No such file or directory"):
        read_snapshot(tmp_path / "c")


def test_existing_snapshot_is_never_overwritten(good, tmp_path):
    with pytest.raises(BadSnapshot, match="exists already"):
        build_snapshot(write_dump(tmp_path), good.path, identity="x", probe_sql=PROBE)


@pytest.mark.parametrize("text", ["", "{}", '{"schema": 2}', "[]"])
def test_bad_description_names_its_file(copy, text):
    description_path(copy).write_text(text)
    with pytest.raises(BadSnapshot, match=r"calib\.tar\.json"):
        read_snapshot(copy)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_works_for_an_ordinary_user(good, tmp_path):
    import shutil
    import tempfile

    work = Path(tempfile.mkdtemp(prefix="ep-user-", dir="/tmp"))
    try:
        write_dump(work)
        shutil.chown(work, "nobody")
        code = (
            "import os, sys; sys.path.insert(0, sys.argv[1])\n"
            "from pilot.caldb.snapshot import *\n"
            "os.setgid(65534); os.setuid(65534)\n"
            "d = sys.argv[2]\n"
            f"build_snapshot(d + '/calibrations.sql', d + '/c.tar', identity='x', probe_sql={PROBE!r})\n"
            "check_snapshot(d + '/c.tar')\n"
        )
        environment = {"PATH": os.defpath, "TMPDIR": str(work)}
        done = subprocess.run(
            [sys.executable, "-c", code, os.getcwd(), str(work)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in work.iterdir()) == ["c.tar", "c.tar.json", "calibrations.sql"]
    finally:
        shutil.rmtree(work)


def run_cli(*words):
    parser = argparse.ArgumentParser(prog="pilot")
    cli.add_parser(parser.add_subparsers(dest="command", required=True))
    return cli.run(parser.parse_args(["caldb", *map(str, words)]))


def test_command_line(tmp_path, capsys):
    dump, out = write_dump(tmp_path), tmp_path / "c.tar"
    assert run_cli("build", dump, out, "--identity", "cal-1", "--probe", PROBE, "--runs", 1, 9) == 0
    assert "built:" in capsys.readouterr().out
    assert run_cli("check", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["run_range"] == [1, 9]
    assert run_cli("build", dump, out, "--identity", "cal-1", "--probe", PROBE) == 1
    answer = capsys.readouterr()
    assert answer.out == ""
    assert answer.err.count("\n") == 1
    assert "exists already" in answer.err
