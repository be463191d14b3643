"""Texts of the node side: manifest, journal lines, options, what a payload printed, /proc."""

from __future__ import annotations

import json
import zlib

import pytest

from pilot.multijob.node.database import keeper_plan
from pilot.multijob.node.entry import expand_local_dir, make_parser
from pilot.multijob.node.journal import JournalWriter, escape, render_line, utc_text
from pilot.multijob.node.launch import agent_argv, find_batch_id
from pilot.multijob.node.manifest import BadManifest, Kind, Limits, Pattern, parse_manifest
from pilot.multijob.node.processes import Name, Seen, descendants, members, parse_stat
from pilot.multijob.node.scan import LINE_MAX_BYTES, TAIL_CHARACTERS, PayloadScan


def manifest(**changes):
    body = {
        "schema": 1,
        "bundle_id": "b",
        "python": "/usr/bin/python3",
        "agent_file": "/s/agent.pyz",
        "walltime_s": 600,
        "limits": {"margin_s": 20},
        "local_dir": "/dev/shm",
        "slots": 4,
        "launch": [["aprun", "-n", "1"]],
        "environment": {"PATH": "/bin"},
        "caldb": None,
        "kinds": {
            "k": {"needs_caldb": False, "end_marker": {"where": "stdout", "text": "End"}, "patterns": []}
        },
        "nodes": [{"index": 0, "jobs": [job()]}],
    }
    return json.dumps({**body, **changes})


def job(**changes):
    body = {
        "panda_id": 1,
        "attempt_nr": 1,
        "kind": "k",
        "predicted_s": 5,
        "argv": ["x"],
        "environment": {},
        "inputs": [],
        "outputs": [{"lfn": "o", "target": "/out/o"}],
        "log": None,
    }
    return {**body, **changes}


def test_a_keeper_is_told_how_many_runs_its_nodes_jobs_ask_for():
    kinds = {name: {"needs_caldb": name == "c", "end_marker": None, "patterns": []} for name in "ck"}
    caldb = {
        "backend": "mariadb",
        "snapshot": "/s/c.tar",
        "sha256": "0" * 64,
        "identity": "c",
        "probe": {"sql": "SELECT 1", "expect": "1"},
        "access": "socket",
        "server": None,
    }
    asked = [("c", 7), ("c", 7), ("c", 8), ("c", None), ("k", 9)]
    jobs = [job(panda_id=number, kind=kind, run=run) for number, (kind, run) in enumerate(asked, 1)]
    nodes = [{"index": 0, "jobs": jobs}, {"index": 1, "jobs": [job(panda_id=9, kind="c")]}]
    found = parse_manifest(manifest(kinds=kinds, caldb=caldb, nodes=nodes, launch=[[], []]))
    assert [keeper_plan(found, "/n", node).runs for node in (0, 1)] == [2, 0]


def test_manifest_with_defaults():
    found = parse_manifest(manifest())
    assert found.limits == Limits(margin_s=20)
    assert found.fencing == "link"
    assert found.jobs[0][0].outputs[0].target == "/out/o"
    assert found.malformed == {0: ()}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": 2}, "schema: expected 1, found 2"),
        ({"slots": 0}, "slots"),
        ({"slots": True}, "slots"),
        ({"fencing": "none"}, "fencing: expected one of link, weak, found 'none'"),
        ({"limits": {"margin_s": "20"}}, "limits.margin_s"),
        ({"limits": {"poll_s": None}}, "limits.poll_s"),
        ({"launch": []}, "launch: 0 entries for nodes"),
        ({"environment": {"A": 1}}, "environment"),
        ({"caldb": {"backend": "oracle"}}, "caldb.backend"),
        ({"kinds": {"k": {}}}, "needs_caldb"),
    ],
)
def test_bad_manifest_names_the_field(changes, words):
    with pytest.raises(BadManifest, match=words):
        parse_manifest(manifest(**changes))


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", "null"])
def test_a_text_that_is_no_manifest(text):
    with pytest.raises(BadManifest):
        parse_manifest(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"argv": []},
        {"kind": "unknown"},
        {"environment": {"A": "\0"}},
        {"outputs": [{"lfn": "../o", "target": "/out/o"}]},
        {"outputs": [{"lfn": "o", "target": "out/o"}]},
        {"predicted_s": "soon"},
    ],
)
def test_a_malformed_job_harms_no_neighbour(changes):
    found = parse_manifest(manifest(nodes=[{"index": 0, "jobs": [job(panda_id=2, **changes), job()]}]))
    assert [(bad.panda_id, bad.attempt_nr) for bad in found.malformed[0]] == [(2, 1)]
    assert [good.panda_id for good in found.jobs[0]] == [1]


def test_a_line_is_crc_and_json():
    line = render_line(3, "job_started", "u", 1.23456, {"panda_id": 7})
    crc, text = line.rstrip(b"\n").split(b" ", 1)
    assert int(crc, 16) == zlib.crc32(text)
    assert json.loads(text) == {"n": 3, "kind": "job_started", "utc": "u", "t_s": 1.235, "panda_id": 7}


def test_journal_after_a_failed_write_writes_nothing_more(tmp_path, monkeypatch):
    journal = JournalWriter(str(tmp_path / "j"), lambda: 0.0, lambda: 0.0)
    journal.write("a", {})
    monkeypatch.setattr("os.fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space"):
        journal.write("b", {})
    monkeypatch.undo()
    with pytest.raises(OSError, match="broken"):
        journal.write("c", {})
    journal.close()


def test_utc_and_escape():
    assert utc_text(0.5) == "1970-01-01T00:00:00.500000Z"
    assert escape("a\nb\x1b[1mü") == "a\\nb\\x1b[1m\\xfc"
    assert len(escape("\0" * 1000, 500)) == 500


def test_options():
    options = make_parser().parse_args(["gate", "--round", "2", "--bundle", "d"])
    assert (options.command, options.round, options.bundle, options.batch_id) == ("gate", 2, "d", None)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "command"),
        (["run"], "invalid choice: 'run'"),
        (["gate", "--round", "1"], "required: --bundle"),
        (["gate", "--bundle", "d", "--round", "x"], "--round: invalid int value: 'x'"),
        (["agent", "--bundle", "d", "--round", "1"], "required: --batch-id, --node, --seconds-left"),
    ],
)
def test_wrong_usage_says_what(argv, words, capsys):
    with pytest.raises(SystemExit) as left:
        make_parser().parse_args(argv)
    assert left.value.code == 2
    assert words in capsys.readouterr().err


def test_local_dir():
    assert expand_local_dir("/dev/shm", {}) == "/dev/shm"
    assert expand_local_dir("$TMP", {"TMP": "/t"}) == "/t"
    assert expand_local_dir("$TMP/x", {"TMP": "/t"}) == "/t/x"
    with pytest.raises(BadManifest, match="no variable TMP"):
        expand_local_dir("$TMP", {"TMP": ""})


def test_batch_id():
    assert find_batch_id({"PBS_JOBID": "1.bw"}, "x") == "1.bw"
    assert find_batch_id({"SLURM_JOB_ID": "2"}, None) == "2"
    assert find_batch_id({"PBS_JOBID": ""}, "x") == "x"
    assert find_batch_id({}, None) is None
    assert find_batch_id({}, "") is None


def test_agent_command():
    argv = agent_argv(parse_manifest(manifest()), "/b", 2, 0, 590.04, "1.bw")
    assert argv[:8] == ["aprun", "-n", "1", "/usr/bin/python3", "-I", "-S", "/s/agent.pyz", "agent"]
    assert argv[8:] == "--bundle /b --round 2 --node 0 --seconds-left 590.0 --batch-id 1.bw".split()


KIND = Kind(
    "k",
    False,
    Pattern("", "stdout", "End of Job"),
    (Pattern("fatal", "stderr", "FATAL"), Pattern("both", "stdout", "FATAL")),
    r"^(\d+) events read",
    r"written: (\d+)$",
)


def scan(stdout=b"", stderr=b"", size=1000):
    found = PayloadScan(KIND)
    for name, text in (("stdout", stdout), ("stderr", stderr)):
        for at in range(0, len(text), size):
            found.streams[name].feed(text[at : at + size])
        found.streams[name].end()
    return found.findings()


def test_texts_are_found_in_their_own_stream():
    assert scan(b"End of Job").marker is True
    assert scan(b"", b"End of Job").marker is False
    assert scan(b"", b"x FATAL y").patterns == ("fatal",)
    assert scan(b"FATAL", b"FATAL").patterns == ("both", "fatal")


def test_last_count_counts():
    assert scan(b"1 events read\n22 events read\nwritten: 5\n").events_read == 22
    assert scan(b"written: 5").events_written == 5
    assert scan(b"x 1 events read\n").events_read is None
    assert scan(b"9999999999999999999999 events read\n").events_read is None


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_pieces_of_any_size_give_the_same(size):
    text = b"noise\n" * 9 + b"12 events read\nEnd of Job"
    assert scan(text, b"FATAL " * 200, size) == scan(text, b"FATAL " * 200)


def test_endless_line_is_looked_at_in_pieces():
    found = PayloadScan(KIND)
    for _ in range(5):
        found.streams["stdout"].feed(b"x" * LINE_MAX_BYTES)
    assert len(found.streams["stdout"]._rest) <= LINE_MAX_BYTES


def test_tail_is_short_and_escaped():
    tail = scan(b"", b"a" * 5000 + b"\x1b[31m\xffend\n").stderr_tail
    assert len(tail) == TAIL_CHARACTERS
    assert tail.endswith("\\x1b[31m\\ufffdend\\n")


def test_stat_of_a_process_with_an_odd_name():
    text = "42 (a) b (c) S 1 42 40 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 777 1000 5 0"
    found = parse_stat(text)
    assert (found.pid, found.ppid, found.session, found.start, found.state) == (42, 1, 40, 777, "S")
    assert parse_stat("42 (x) S 1") is None


def tree(*rows):
    return {pid: Seen(pid, ppid, session, 100 + pid, state, 1.0) for pid, ppid, session, state in rows}


def test_members_are_session_descendants_known_and_marked():
    seen = tree(
        (10, 1, 10, "S"),  # the agent
        (20, 10, 20, "S"),  # first process of the payload
        (21, 20, 21, "S"),  # its child in another session
        (22, 10, 20, "S"),  # adopted, same session
        (23, 10, 23, "S"),  # adopted, known from before
        (24, 23, 24, "S"),  # child of a known one
        (25, 10, 25, "S"),  # adopted, marked
        (26, 10, 26, "S"),  # adopted, of another payload
        (27, 20, 20, "Z"),  # defunct
        (90, 1, 20, "S"),  # not below the agent
    )
    known = frozenset([Name(23, 123), Name(26, 999)])
    found = members(seen, Name(20, 120), known, 10, lambda pid: pid == 25)
    assert {name.pid for name in found} == {20, 21, 22, 23, 24, 25}
    assert descendants(seen, [20]) == {21, 27}
