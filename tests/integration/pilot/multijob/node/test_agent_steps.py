"""A payload of several steps: each keeps its own code, CPU and end marker, and the first that failed decides."""

from __future__ import annotations

import json

import pytest
from nodekit import await_true, processes_with


def step(name, script, marker=None, where="stdout", **more):
    end_marker = None if marker is None else {"where": where, "text": marker}
    return {"name": name, "argv": ["sh", "-c", script], "end_marker": end_marker, **more}


def steps_of(bundle, job):
    return [(item["name"], item["exit_code"], item["marker"]) for item in bundle.end_of(job)["steps"]]


def test_steps_run_one_after_the_other_in_one_place_and_all_is_kept(bundle):
    spin = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; "
    job = bundle.job(
        "",
        ("o",),
        steps=[
            step("unpack", "echo one > a; pwd; echo made by unpack >&2"),
            step("reconstruct", spin + "cat a > o; pwd; echo End of Job", "End of Job"),
            step("check", "test -s o && echo End of Job >&2", "End of Job", "stderr"),
        ],
    )
    bundle.run_agent()
    end = bundle.end_of(job)
    assert steps_of(bundle, job) == [("unpack", 0, None), ("reconstruct", 0, True), ("check", 0, True)]
    assert (end["exit_code"], end["signal"], end["marker"]) == (0, None, True)
    assert end["files"][0]["placed"]
    assert end["steps"][1]["cpu_s"] > 2 * end["steps"][0]["cpu_s"]
    assert end["cpu_s"] == pytest.approx(sum(item["cpu_s"] for item in end["steps"]), abs=0.01)
    assert end["wall_s"] == pytest.approx(sum(item["wall_s"] for item in end["steps"]), abs=0.01)
    assert end["stderr_tail"] == "made by unpack\\nEnd of Job\\n"


def test_the_first_step_that_failed_decides_and_not_the_last_that_ran(bundle):
    # As the originals had it: prepare; reconstruct; pack what was printed; remove. The last one always succeeds.
    job = bundle.job(
        "",
        ("o",),
        steps=[
            step("prepare", "true"),
            step("reconstruct", "echo partial > o; exit 7", "End of Job"),
            step("check", "touch never"),
            step("clean", "test ! -e never && echo End of Job; exit 0", after_failure=True),
        ],
    )
    bundle.run_agent()
    end = bundle.end_of(job)
    assert steps_of(bundle, job) == [("prepare", 0, None), ("reconstruct", 7, False), ("clean", 0, None)]
    assert (end["exit_code"], end["marker"]) == (7, False)
    assert not end["files"][0]["placed"], "no output of a payload that failed"


def test_a_signal_of_a_step_is_kept_though_a_later_one_fails_too(bundle):
    steps = [step("crash", "kill -SEGV $$"), step("clean", "exit 3", after_failure=True)]
    job = bundle.job("", steps=steps)
    bundle.run_agent()
    end = bundle.end_of(job)
    assert (end["signal"], end["exit_code"]) == (11, None)
    assert [(item["signal"], item["exit_code"]) for item in end["steps"]] == [(11, None), (None, 3)]


def test_a_marker_counts_only_in_what_its_own_step_printed(bundle):
    steps = [
        step("first", "true", "End of Job"),
        step("second", "echo End of Job", "End of Job"),
    ]
    job = bundle.job("", steps=steps)
    bundle.run_agent()
    assert steps_of(bundle, job) == [("first", 0, False), ("second", 0, True)]
    assert bundle.end_of(job)["marker"] is False


def test_a_step_that_cannot_be_started_fails_like_one_that_does_not_succeed(bundle):
    steps = [step("good", "true"), {"name": "missing", "argv": ["no-such-program"]}, step("never", "echo x")]
    job = bundle.job("", steps=steps)
    bundle.run_agent()
    assert steps_of(bundle, job) == [("good", 0, None), ("missing", 127, None)]
    assert bundle.end_of(job)["exit_code"] == 127
    assert "no-such-program" in bundle.end_of(job)["stderr_tail"]


def test_what_a_step_leaves_running_ends_with_it(bundle):
    leave = step("one", "setsid sleep 86.5 & echo $! > pid")
    job = bundle.job("", steps=[leave, step("two", "kill -0 $(cat pid)")])
    bundle.run_agent()
    assert steps_of(bundle, job) == [("one", 0, None), ("two", 1, None)]
    assert not processes_with("86.5")


def test_a_job_that_is_ended_in_a_step_begins_no_other(bundle):
    up = bundle.root / "up"
    steps = [
        step("one", f"trap 'exit 0' TERM; touch {up}; sleep 60 & wait"),
        step("two", f"touch {up}.two"),
        step("clean", f"touch {up}.clean", after_failure=True),
    ]
    job = bundle.job("", steps=steps)
    agent = bundle.start_agent()
    await_true(up.exists)
    temp = bundle.dir / "commands.tmp"
    temp.write_text(json.dumps({"serial": 1, "end": [{"panda_id": job, "attempt_nr": 1}]}))
    temp.rename(bundle.dir / "commands.json")
    agent.communicate(timeout=20)
    end = bundle.end_of(job)
    assert (end["ended_by"], end["exit_code"]) == ("killed", 0)
    assert [item["name"] for item in end["steps"]] == ["one"]
    assert not (bundle.root / "up.two").exists()
    assert not (bundle.root / "up.clean").exists()


def test_limits_hold_for_all_steps_together(bundle):
    bundle.limits.update(wall_max_s=1.0, sample_s=0.1)
    job = bundle.job("", steps=[step("one", "sleep 0.6"), step("two", "exec sleep 87.5")])
    bundle.run_agent()
    end = bundle.end_of(job)
    assert (end["ended_by"], len(end["steps"])) == ("limit-wall", 2)
    assert end["wall_s"] < 8


def test_a_job_of_one_command_has_no_steps_in_its_facts(bundle):
    job = bundle.job("echo End of Job")
    bundle.run_agent()
    assert "steps" not in bundle.end_of(job)
