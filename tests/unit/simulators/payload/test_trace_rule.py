"""The trace of payloads and the rule by which double runs are counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulators.payload.exits import Exit, PayloadError
from simulators.payload.trace import (
    RunTrace,
    TraceError,
    end_trace,
    parse_trace,
    process_start,
    read_traces,
    runs_twice,
    start_trace,
)


def run(
    panda_id: int,
    start: int,
    end: int | None = None,
    code: int | None = 0,
    work: str | None = "w",
    **more: object,
) -> RunTrace:
    attempt = int(str(more.get("attempt", 1)))
    code = None if end is None else code
    return RunTrace(panda_id, attempt, work, 100 + start, 1, start, end, code, bool(more.get("alive")))


# name: (traces, accepted or None, double runs)
RULES: dict[str, tuple[list[RunTrace], set[tuple[int, int]] | None, int]] = {
    "nothing": ([], None, 0),
    "one-run": ([run(1, 0, 5)], None, 0),
    "two-works-at-once": ([run(1, 0, 5, work="a"), run(2, 1, 4, work="b")], None, 0),
    "two-jobs-without-work-at-once": ([run(1, 0, 5, work=None), run(2, 1, 4, work=None)], None, 0),
    "retry-after-failure": ([run(1, 0, 5, code=11), run(2, 6, 9)], None, 0),
    "retry-after-sigkill": ([run(1, 0), run(2, 6, 9)], None, 0),
    "same-attempt-after-sigkill": ([run(1, 0), run(1, 6, 9)], None, 0),
    "same-attempt-after-sigkill-and-accepted": ([run(1, 0), run(1, 6, 9)], {(1, 1)}, 0),
    "same-attempt-after-success": ([run(1, 0, 5), run(1, 6, 9)], None, 1),
    "same-attempt-after-failure": ([run(1, 0, 5, code=11), run(1, 6, 9)], None, 1),
    "same-attempt-overlapping": ([run(1, 0, 7), run(1, 6, 9)], None, 1),
    "same-attempt-while-alive": ([run(1, 0, alive=True), run(1, 6, 9)], None, 1),
    "same-attempt-without-work": ([run(1, 0, 5, work=None), run(1, 6, 9, work=None)], None, 1),
    "same-attempt-second-without-work": ([run(1, 0, 5), run(1, 6, 9, work=None)], None, 1),
    "other-attempt-of-the-job-after-failure": ([run(1, 0, 5, code=1), run(1, 6, 9, attempt=2)], None, 0),
    "same-attempt-three-times": ([run(1, 0, 5), run(1, 6, 9), run(1, 10, 12)], None, 2),
    "two-attempts-overlapping": ([run(1, 0, 7, code=11), run(2, 6, 9)], None, 1),
    "two-attempts-overlapping-out-of-order": ([run(2, 6, 9), run(1, 0, 7, code=11)], None, 1),
    "second-attempt-while-first-alive": ([run(1, 0, alive=True), run(2, 6, 9)], None, 1),
    "end-and-start-in-the-same-moment": ([run(1, 0, 6, code=11), run(2, 6, 9)], None, 0),
    "two-successes": ([run(1, 0, 5), run(2, 6, 9)], None, 1),
    "two-successes-one-accepted": ([run(1, 0, 5), run(2, 6, 9)], {(2, 1)}, 0),
    "two-accepted": ([run(1, 0, 5), run(2, 6, 9)], {(1, 1), (2, 1)}, 1),
    "accepted-and-failed-retry": ([run(1, 0, 5, code=11), run(2, 6, 9)], {(2, 1)}, 0),
    "two-successes-of-two-works": ([run(1, 0, 5, work="a"), run(2, 6, 9, work="b")], None, 0),
    "all-rules-at-once-count-once": ([run(1, 0, 7), run(1, 6, 9)], {(1, 1)}, 1),
}


@pytest.mark.parametrize("name", RULES)
def test_rule(name: str) -> None:
    traces, accepted, expected = RULES[name]
    assert runs_twice(traces, accepted) == expected
    assert runs_twice(reversed(traces), accepted) == expected


def environment(directory: Path) -> dict[str, str]:
    return {"SIM_TRACE_DIR": str(directory), "PANDA_ID": "17", "PANDA_ATTEMPT": "2", "PRODSYS_WORK": "w.1"}


def test_trace_is_written_and_read(tmp_path: Path) -> None:
    path = start_trace(environment(tmp_path))
    assert path == tmp_path / f"17.2.{os.getpid()}.jsonl"
    start = json.loads(path.read_text())
    assert set(start) == {
        "event",
        "panda_id",
        "attempt",
        "pid",
        "pid_start",
        "host",
        "work",
        "utc",
        "mono_ns",
    }
    (running,) = read_traces(tmp_path)
    assert running.alive and running.end_ns is None
    assert (running.panda_id, running.attempt, running.work) == (17, 2, "w.1")
    assert running.pid_start == process_start(os.getpid())
    end_trace(path, 11)
    (ended,) = read_traces(tmp_path)
    assert not ended.alive and ended.exit_code == 11
    assert ended.end_ns is not None and ended.end_ns > ended.start_ns
    assert os.listdir(tmp_path) == [path.name]


def test_without_trace_directory_nothing_is_written(tmp_path: Path) -> None:
    assert start_trace({}) is None
    end_trace(None, 0)


def test_second_start_of_the_same_process_is_refused(tmp_path: Path) -> None:
    first = start_trace(environment(tmp_path))
    assert first is not None
    before = first.read_text()
    with pytest.raises(PayloadError, match="File exists") as caught:
        start_trace(environment(tmp_path))
    assert caught.value.code == Exit.TRACE_FAILED
    assert first.read_text() == before


@pytest.mark.parametrize("name", ["PANDA_ID", "PANDA_ATTEMPT"])
@pytest.mark.parametrize("value", [None, "", "x", "-1", "1.5", "../1"])
def test_a_run_without_identity_is_not_traced_as_another(
    tmp_path: Path, name: str, value: str | None
) -> None:
    words = {key: text for key, text in (environment(tmp_path) | {name: value}).items() if text is not None}
    with pytest.raises(PayloadError, match=name) as caught:
        start_trace(words)
    assert caught.value.code == Exit.USAGE
    assert not os.listdir(tmp_path)


def test_missing_trace_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PayloadError, match="cannot write the trace") as caught:
        start_trace(environment(tmp_path / "none"))
    assert caught.value.code == Exit.TRACE_FAILED


def test_process_that_is_gone_or_another_is_not_alive(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    start = {
        "event": "start",
        "panda_id": 1,
        "attempt": 1,
        "work": None,
        "host": "h",
        "utc": "",
        "mono_ns": 5,
    }
    gone = start | {"pid": ended.pid, "pid_start": 1}
    another = start | {"panda_id": 2, "pid": os.getpid(), "pid_start": 1}
    for name, line in (("1.1.1", gone), ("2.1.1", another)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(line) + "\n")
    assert [trace.alive for trace in read_traces(tmp_path)] == [False, False]


def test_defunct_process_is_not_alive() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert ended.stdout is not None
    ended.stdout.read()
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert process_start(ended.pid) is None
    finally:
        ended.wait()
        ended.stdout.close()


START = (
    '{"event": "start", "panda_id": 1, "attempt": 1, "pid": 2, "pid_start": 3, "host": "h", '
    '"work": null, "utc": "", "mono_ns": 4}\n'
)
END = '{"event": "end", "exit_code": 0, "utc": "", "mono_ns": 9}\n'


def test_last_line_without_line_feed_is_not_there_yet() -> None:
    assert parse_trace(START + END, "x").end_ns == 9
    assert parse_trace(START + END[:-1], "x").end_ns is None


@pytest.mark.parametrize(
    "text", ["", START[:-1], END, START + START, START + END + END, "{}\n", "[]\n", "x\n"]
)
def test_what_is_no_trace_is_never_read_as_no_run(text: str) -> None:
    with pytest.raises(TraceError, match=r"x\.jsonl"):
        parse_trace(text, "x.jsonl")
