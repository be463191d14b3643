"""The first process of a payload, by both ways of starting it."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from pilot.multijob.node.spawn import USE_POSIX_SPAWN, keep_descriptors, parse_glibc, spawn

WAYS = [False, *([True] if USE_POSIX_SPAWN else [])]


@pytest.fixture(params=WAYS, ids=lambda way: "posix_spawn" if way else "Popen")
def run(request, tmp_path, monkeypatch):
    """Run to its end in a new work directory: (exit code, what it printed)."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(tmp_path)  # put back at the end: `spawn` leaves this process in the root directory

    def run(argv, environment=None):
        out = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            pid = spawn(argv, environment or {"PATH": os.defpath}, str(work), out, out, request.param)
            _, status = os.waitpid(pid, 0)
        finally:
            os.close(out)
        return os.WEXITSTATUS(status), (tmp_path / "out").read_text()

    return run


def test_a_payload_stands_in_its_work_directory_in_a_session_of_its_own(run, tmp_path):
    code, said = run(["sh", "-c", "pwd; ps -o sid= -p $$; echo $$; readlink /proc/self/fd/0; exit 3"])
    where, session, pid, stdin = said.split()
    assert (code, where, session, stdin) == (3, str(tmp_path / "work"), pid, "/dev/null")


def test_a_program_is_looked_for_on_the_payloads_path(run, tmp_path):
    program = tmp_path / "bin" / "only-here"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho found $WHO\n")
    program.chmod(0o755)
    assert run(["only-here"], {"PATH": f"/nowhere:{program.parent}", "WHO": "me"}) == (0, "found me\n")
    with pytest.raises(FileNotFoundError):
        run(["only-here"])
    program.chmod(0o644)
    with pytest.raises(PermissionError):
        run(["only-here"], {"PATH": str(program.parent)})


@pytest.mark.parametrize("argv", [["./no-such-program"], ["/etc/passwd"], ["x\0y"]])
def test_what_cannot_be_run_is_an_error_and_no_exit_code(run, argv):
    with pytest.raises((OSError, ValueError)):
        run(argv)


def test_a_payload_inherits_no_descriptor_and_no_ignored_signal(run, tmp_path):
    leaked = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        keep_descriptors()
        said = run([sys.executable, "-c", "import os; print(*sorted(os.listdir('/proc/self/fd')))"])[1]
    finally:
        os.close(leaked)
    assert said.split() == ["0", "1", "2", "3"], "3 is the listing's own"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        ignored = run(["grep", "SigIgn", "/proc/self/status"])[1].split()[1]
    finally:
        signal.signal(signal.SIGHUP, before)
    assert int(ignored, 16) % 2**31 == 0, "32 and 33 are the C library's own, it sets them itself"


def test_version_of_the_c_library():
    assert parse_glibc("glibc 2.36") == (2, 36)
    assert parse_glibc("musl 1.2") == parse_glibc("") == parse_glibc("glibc x") == ()
