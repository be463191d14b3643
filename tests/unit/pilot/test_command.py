"""The one subprocess runner: always a value, never a shell, nothing left behind."""

from __future__ import annotations

import os
import sys
import time

from pilot.command import Completed, NotStarted, TimedOut, TooMuchOutput, run_command

ENV = {"PATH": os.environ["PATH"], "ONLY": "this"}


def python(code: str, *words: str, timeout_s: float = 20.0, **more):
    return run_command(
        [sys.executable, "-I", "-S", "-c", code, *words], timeout_s=timeout_s, environment=ENV, **more
    )


def test_both_texts_and_the_exit_code_come_back():
    outcome = python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(153)")
    assert isinstance(outcome, Completed)
    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (153, "out\n", "err\n")
    assert 0 < outcome.took_s < 20


def test_environment_is_the_given_one_and_nothing_else(monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    outcome = python("import os; print(os.environ.get('SECRET'), os.environ['ONLY'])")
    assert isinstance(outcome, Completed) and outcome.stdout == "None this\n"


def test_words_are_not_read_by_a_shell():
    outcome = python("import sys; print(sys.argv[1])", "$(id); *")
    assert isinstance(outcome, Completed) and outcome.stdout == "$(id); *\n"


def test_missing_command_is_a_value_with_a_clear_reason(tmp_path):
    outcome = run_command(["no-such-qsub"], timeout_s=5, environment={"PATH": str(tmp_path)})
    assert outcome == NotStarted("cannot start 'no-such-qsub': not found on PATH")
    (tmp_path / "qsub").write_text("")
    outcome = run_command(["qsub"], timeout_s=5, environment={"PATH": str(tmp_path)})
    assert outcome == NotStarted("cannot start 'qsub': not executable")
    assert isinstance(python("", cwd="/no/such/directory"), NotStarted)
    assert isinstance(run_command(["a\0b"], timeout_s=5, environment=ENV), NotStarted)


def test_end_by_a_signal_is_a_negative_exit_code():
    outcome = python("import os; os.kill(os.getpid(), 9)")
    assert isinstance(outcome, Completed) and outcome.exit_code == -9


def test_command_that_hangs_is_ended_with_its_whole_group():
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)"
    )
    begun = time.monotonic()
    outcome = python(code, timeout_s=0.5)
    assert isinstance(outcome, TimedOut) and time.monotonic() - begun < 10
    child = int(outcome.stdout)
    deadline = time.monotonic() + 10
    while _running(child):
        assert time.monotonic() < deadline, "the grandchild is still there"


def _running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_grandchild_that_keeps_the_pipe_open_does_not_hold_the_caller():
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    outcome = python(code, timeout_s=0.6)
    assert isinstance(outcome, TimedOut)


def test_endless_output_is_cut_by_the_limit_and_by_the_time():
    code = "import sys\nwhile True: sys.stdout.write('x' * 65536)"
    assert python(code, output_max_bytes=1_000_000) == TooMuchOutput(1_000_000)
    assert isinstance(python(code, timeout_s=0.3, output_max_bytes=1 << 40), TimedOut)


def test_bytes_that_are_no_text_come_back_escaped():
    outcome = python(r"import sys; sys.stdout.buffer.write(b'a\xffb')")
    assert isinstance(outcome, Completed) and outcome.stdout == "a\\xffb"


def test_standard_input_is_empty():
    outcome = python("import sys; print(repr(sys.stdin.read()))")
    assert isinstance(outcome, Completed) and outcome.stdout == "''\n"
