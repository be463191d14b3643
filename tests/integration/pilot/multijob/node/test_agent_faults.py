"""A real agent in bad company: payloads that fail, hang, hide or print too much; `closed`, commands, signals, death."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest
from nodekit import await_true, processes_with

HOLD = "touch {go}.up; while [ ! -e {go} ]; do sleep 0.02; done; echo End of Job; echo x > o"


def close(bundle):
    (bundle.dir / "closed").write_text('{"utc": "x"}')


def test_exit_0_without_output_is_a_fact_and_neighbours_finish(bundle):
    empty = bundle.job("echo End of Job", ("o.root",))
    failed = bundle.job("echo x > p.root; echo FATAL >&2; exit 3", ("p.root",))
    signalled = bundle.job("kill -SEGV $$")
    missing = bundle.job("", argv=["no-such-command"])
    good = bundle.job("echo x > q.root; echo End of Job", ("q.root",))
    bundle.limits["quick_failure_s"] = 0
    bundle.run_agent()
    end = bundle.end_of(empty)
    assert (end["exit_code"], end["files"][0]["size"], end["files"][0]["placed"]) == (0, None, False)
    end = bundle.end_of(failed)
    assert (end["exit_code"], end["marker"], end["patterns"]) == (3, False, ["fatal"])
    assert end["files"][0] == {
        "lfn": "p.root",
        "size": 2,
        "adler32": None,
        "placed": False,
        "reason": "payload ended with exit code 3",
    }
    assert end["files"][1]["placed"], "the log of a failed job is wanted most"
    assert end["stderr_tail"] == "FATAL\\n"
    end = bundle.end_of(signalled)
    assert (end["exit_code"], end["signal"]) == (None, 11)
    end = bundle.end_of(missing)
    assert end["exit_code"] == 127
    assert "no-such-command" in end["stderr_tail"]
    assert bundle.end_of(good)["files"][0]["placed"]


def test_malformed_job_is_given_back_and_its_neighbours_run(bundle):
    bad = bundle.job("", argv=[])
    odd = bundle.job("", argv=["sh", "\udfff"])
    good = bundle.job("echo End of Job")
    bundle.run_agent()
    [line] = bundle.of_kind("given_back")
    assert line["jobs"] == [[bad, 1]]
    assert bundle.end_of(odd)["exit_code"] == 126
    assert bundle.end_of(good)["exit_code"] == 0


def test_closed_before_the_start_runs_nothing(bundle):
    bundle.job("echo ran > $RAN", environment={"RAN": str(bundle.root / "ran")})
    close(bundle)
    lines = bundle.run_agent()
    assert [line["kind"] for line in lines] == ["agent_started", "closed_seen", "agent_ended"]
    assert not (bundle.root / "ran").exists()


def test_closed_while_running_ends_payloads_and_places_nothing(bundle):
    go = bundle.root / "go"
    job = bundle.job("echo x > o; " + HOLD.format(go=go), ("o",))
    agent = bundle.start_agent()
    await_true((bundle.root / "go.up").exists)
    close(bundle)
    agent.communicate(timeout=8)
    end = bundle.end_of(job)
    assert end["ended_by"] == "closed"
    assert not any(item["placed"] for item in end["files"])
    assert bundle.of_kind("closed_seen")
    assert not bundle.out.exists()


def test_bundle_directory_that_is_gone_was_closed(bundle):
    go = bundle.root / "go"
    bundle.job(HOLD.format(go=go), ("o",))
    agent = bundle.start_agent()
    await_true((bundle.root / "go.up").exists)
    for path in bundle.dir.iterdir():
        path.unlink()
    bundle.dir.rmdir()
    agent.communicate(timeout=20)
    assert not bundle.out.exists()
    assert list(bundle.local.iterdir()) == []


def test_command_ends_the_named_job_only(bundle):
    go = bundle.root / "go"
    bundle.slots = 1
    job = bundle.job(HOLD.format(go=go), ("o",))
    waiting = bundle.job("echo End of Job")
    other = bundle.job("echo End of Job")
    agent = bundle.start_agent()
    await_true((bundle.root / "go.up").exists)
    end = [{"panda_id": number, "attempt_nr": 1, "why": "killed"} for number in (job, waiting)]
    temp = bundle.dir / "commands.tmp"
    temp.write_text(json.dumps({"serial": 1, "end": end}))
    temp.rename(bundle.dir / "commands.json")
    agent.communicate(timeout=20)
    assert bundle.end_of(job)["ended_by"] == "killed"
    assert bundle.end_of(job)["files"][1]["placed"], "the log of a killed job is kept"
    assert bundle.of_kind("given_back")[0]["jobs"] == [[waiting, 1]]
    assert bundle.end_of(other)["exit_code"] == 0


def test_deadline_ends_what_runs_and_gives_back_what_does_not_fit(bundle):
    bundle.slots = 1
    job = bundle.job("trap 'echo stopped; exit 0' TERM; sleep 60 & wait")
    long = bundle.job("true", predicted_s=1000.0)
    bundle.limits["margin_s"] = 28.5
    lines = bundle.run_agent(seconds_left=30)
    assert bundle.of_kind("given_back")[0]["jobs"] == [[long, 1]]
    end = bundle.end_of(job)
    assert (end["ended_by"], end["exit_code"]) == ("deadline", 0)
    assert lines[-1]["reason"] == "deadline"


def test_three_quick_failures_give_back_the_rest(bundle):
    bundle.slots = 1
    for _ in range(3):
        bundle.job("exit 1")
    rest = [bundle.job("echo End of Job") for _ in range(2)]
    lines = bundle.run_agent()
    [line] = bundle.of_kind("given_back")
    assert line["jobs"] == [[number, 1] for number in rest]
    assert "3 quick failures" in line["reason"]
    assert lines[-1]["reason"] == "quick failures"


def test_sigterm_is_an_orderly_end(bundle):
    go = bundle.root / "go"
    bundle.slots = 1
    job = bundle.job("echo x > o; " + HOLD.format(go=go), ("o",))
    waiting = bundle.job("echo End of Job")
    agent = bundle.start_agent()
    await_true((bundle.root / "go.up").exists)
    agent.terminate()
    agent.communicate(timeout=20)
    assert agent.returncode == 0
    assert bundle.end_of(job)["ended_by"] == "terminated"
    assert bundle.of_kind("given_back")[0]["jobs"] == [[waiting, 1]]
    assert bundle.lines()[-1]["reason"] == "terminated"
    assert not bundle.out.exists()
    assert list(bundle.local.iterdir()) == []


def test_sigterm_to_warden_only_reaches_a_payload_never(bundle):
    job = bundle.job("trap 'echo End of Job; exit 0' TERM; touch up; while true; do sleep 0.02; done")
    agent = bundle.start_agent()
    await_true(lambda: bundle.of_kind("job_started"))
    agent.terminate()
    agent.communicate(timeout=20)
    assert bundle.end_of(job)["signal"] == 9


ESCAPE = """
import os, signal, sys
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(number, signal.SIG_IGN)
os.execve("/bin/sleep", ["sleep", "61.5"], {} if sys.argv[1] == "bare" else dict(os.environ))
"""


@pytest.mark.parametrize("environment", ["kept", "bare"])
def test_escaped_processes_are_swept(bundle, environment):
    script = bundle.root / "escape.py"
    script.write_text(ESCAPE)
    bundle.job(f"{sys.executable} {script} {environment}; (sleep 61.5 &) ; echo End of Job")
    lines = bundle.run_agent()
    assert lines[-1]["left_behind"] == 0
    assert processes_with("61.5") == []


def test_orphans_end_with_their_job_while_others_run(bundle):
    go = bundle.root / "go"
    bundle.job("(setsid sleep 62.5 &) ; echo End of Job")
    bundle.job(HOLD.format(go=go))
    agent = bundle.start_agent()
    await_true(lambda: bundle.of_kind("job_ended"))
    assert processes_with("62.5") == []
    go.touch()
    agent.communicate(timeout=20)
    assert [line["exit_code"] for line in bundle.of_kind("job_ended")] == [0, 0]


def test_killed_agent_is_swept_by_its_warden(bundle):
    bundle.job("setsid sleep 63.5 & exec sleep 63.5")
    agent = bundle.start_agent()
    await_true(lambda: len(processes_with("63.5")) >= 2)
    os.kill(bundle.of_kind("agent_started")[0]["pid"], signal.SIGKILL)
    agent.communicate(timeout=20)
    assert agent.returncode == 0
    assert processes_with("63.5") == []
    assert list(bundle.local.iterdir()) == []
    assert not bundle.of_kind("job_ended"), "a start line without an end is what the edge must find"


def test_killed_warden_is_an_orderly_end_of_its_agent(bundle):
    job = bundle.job("exec sleep 64.5")
    agent = bundle.start_agent()
    await_true(lambda: processes_with("64.5"))
    agent.kill()
    agent.communicate(timeout=20)
    await_true(lambda: bundle.of_kind("agent_ended"))
    assert bundle.end_of(job)["ended_by"] == "terminated"
    await_true(lambda: list(bundle.local.iterdir()) == [])


def test_output_that_is_there_is_never_overwritten(bundle):
    bundle.out.mkdir()
    (bundle.out / "other").write_text("mine")
    (bundle.out / "same").write_text("x")
    other = bundle.job("printf y > other; echo End of Job", ("other",))
    same = bundle.job("printf x > same; echo End of Job", ("same",))
    bundle.run_agent()
    assert (bundle.out / "other").read_text() == "mine"
    first = bundle.end_of(other)["files"][0]
    assert (first["placed"], first["reason"]) == (False, "the target exists with other content")
    assert bundle.end_of(same)["files"][0]["placed"]
    assert not list(bundle.out.glob(".*"))


def test_unusable_output_directory_fails_only_its_own_job(bundle):
    (bundle.root / "file").write_text("")
    bad = bundle.job("echo x > o; echo End of Job", ())
    bundle.jobs[-1]["outputs"] = [{"lfn": "o", "target": f"{bundle.root}/file/below/o"}]
    good = bundle.job("echo x > p; echo End of Job", ("p",))
    bundle.run_agent()
    entry = bundle.end_of(bad)["files"][0]
    assert (entry["size"], entry["placed"]) == (2, False)
    assert "Not a directory" in entry["reason"]
    assert bundle.end_of(good)["files"][0]["placed"]


def test_an_output_that_is_no_file_is_not_there(bundle):
    job = bundle.job("mkfifo o; mkdir p; ln -s nowhere q; echo End of Job", ("o", "p", "q"))
    bundle.run_agent()
    assert [item["size"] for item in bundle.end_of(job)["files"][:3]] == [None] * 3


def test_payload_that_replaces_its_stdout_file_is_still_read(bundle):
    job = bundle.job("rm payload_stdout.txt; mkfifo payload_stdout.txt; echo End of Job")
    bundle.run_agent()
    assert bundle.end_of(job)["marker"] is True


def test_environment_is_explicit(bundle, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_EDGE", "x")
    job = bundle.job("env > o; echo End of Job", ("o",), environment={"LANG": "job", "PANDA_ID": "7"})
    bundle.run_agent()
    found = dict(line.split("=", 1) for line in (bundle.out / "o").read_text().splitlines())
    assert found.pop("PWD") == found.pop("HOME") == found.pop("TMPDIR")
    assert {name: found[name] for name in sorted(set(found) - {"OLDPWD", "SHLVL", "_"})} == {
        "LANG": "job",
        "PANDA_ATTEMPT": "1",
        "PANDA_ID": str(job),
        "PATH": os.defpath,
        "PILOT_BUNDLE": "btestabcd",
        "PILOT_NODE_INDEX": "0",
        "PILOT_SLOT": "0",
    }


def test_no_local_directory_gives_everything_back(bundle):
    job = bundle.job("true")
    bundle.local.rmdir()
    lines = bundle.run_agent()
    [line] = bundle.of_kind("given_back")
    assert line["jobs"] == [[job, 1]]
    assert "no local directory" in line["reason"]
    assert lines[-1]["kind"] == "agent_ended"


def test_many_short_jobs_fill_the_slots(bundle):
    bundle.slots = 4
    jobs = [bundle.job("echo End of Job; echo x > o$PANDA_ID", (f"o{1001 + n}",)) for n in range(40)]
    bundle.run_agent()
    ends = bundle.of_kind("job_ended")
    assert sorted(line["panda_id"] for line in ends) == jobs
    assert all(line["files"][0]["placed"] for line in ends)
    assert {line["slot"] for line in ends} == {0, 1, 2, 3}


def test_an_avoided_node_that_passes_its_own_probe_works_its_list(bundle, monkeypatch):
    monkeypatch.setenv("SECRET", "of the launcher")
    # As a payload is: the environment of the site and no other, in the agent's directory, which the node can write.
    script = 'test -z "$SECRET" && test "$SITE" = here && test "$HOME" = "$PWD" && echo x > "$HOME/x"'
    bundle.extra["avoided"] = {os.uname().nodename: "failed 2 times"}
    bundle.extra["environment"] = {"PATH": os.defpath, "SITE": "here"}
    bundle.extra["probe"] = ["sh", "-c", script]
    job = bundle.job("echo x > o; echo End of Job", ("o",))
    lines = bundle.run_agent()
    assert [line["kind"] for line in lines[:3]] == ["agent_started", "probed", "job_started"]
    assert (lines[1]["because"], lines[1]["failure"]) == ("failed 2 times", None)
    assert bundle.end_of(job)["files"][0]["placed"]


def test_an_avoided_node_that_fails_its_own_probe_gives_all_back_and_starts_nothing(bundle):
    bundle.extra["avoided"] = {os.uname().nodename: "failed 2 times"}
    bundle.extra["probe"] = ["sh", "-c", "echo no mount >&2; sleep 78.5 & exit 3"]
    jobs = [bundle.job("echo ran > $RAN", environment={"RAN": str(bundle.root / "ran")}) for _ in range(3)]
    lines = bundle.run_agent()
    assert [line["kind"] for line in lines] == ["agent_started", "probed", "given_back", "agent_ended"]
    assert lines[1]["failure"] == "sh ended with exit code 3: no mount\\n"
    assert lines[2]["jobs"] == [[job, 1] for job in jobs]
    assert lines[3]["reason"] == "probe failed: sh ended with exit code 3: no mount\\n"
    assert not (bundle.root / "ran").exists()
    assert not processes_with("78.5")
    assert list(bundle.local.iterdir()) == []


def test_an_avoided_node_whose_probe_hangs_gives_all_back(bundle):
    bundle.extra["avoided"] = {os.uname().nodename: "failed 2 times"}
    bundle.extra["probe"] = ["sh", "-c", "sleep 79.5"]
    bundle.limits["probe_s"] = 0.2
    job = bundle.job("echo End of Job")
    bundle.run_agent()
    assert bundle.of_kind("probed")[0]["failure"] == "sh did not end in 0 s"
    assert bundle.of_kind("given_back")[0]["jobs"] == [[job, 1]]
    assert not processes_with("79.5")
