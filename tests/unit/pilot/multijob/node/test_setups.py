"""Which set-up script runs now, and what it made of an environment."""

from __future__ import annotations

from typing import Any

from pilot.multijob.node.manifest import Job, Kind, Limits
from pilot.multijob.node.plan import (
    BeginSetup,
    EndAgent,
    GiveBack,
    GiveUpSetup,
    NodeState,
    StartJob,
    decide,
    next_due_s,
)
from pilot.multijob.node.setups import Made, Setup, applied, difference, scripts_of
from pilot.multijob.node.shell import parse_environment

KIND = Kind("plain", False, None, (), None, None)


def job(number: int, setup: str | None) -> Job:
    return Job(number, 1, KIND, 10.0, ("x",), {}, (), None, (), setup)


JOBS = (job(1, "/a"), job(2, "/b"), job(3, None), job(4, "/a"))


def state(**setups: Setup) -> NodeState:
    known = {**scripts_of(item.setup for item in JOBS), **{f"/{name}": item for name, item in setups.items()}}
    return NodeState(JOBS, setups=known)


def said(of: NodeState, now_s: float = 0.0, **limits: Any) -> tuple[Any, ...]:
    return decide(of, now_s, Limits(**limits), 4, 3600.0)


def started(of: NodeState) -> list[int]:
    return [action.job.panda_id for action in said(of) if isinstance(action, StartJob)]


def test_scripts_run_one_at_a_time_in_the_order_of_the_list_and_other_jobs_need_not_wait() -> None:
    assert [a.script for a in said(state()) if isinstance(a, BeginSetup)] == ["/a"]
    assert not [a for a in said(state(a=Setup("running", "", 300.0))) if isinstance(a, BeginSetup)]
    assert [a.script for a in said(state(a=Setup("ready"))) if isinstance(a, BeginSetup)] == ["/b"]
    assert started(state()) == [3]
    assert started(state(a=Setup("ready"))) == [1, 3, 4]


def test_a_failed_script_gives_back_its_jobs_with_the_reason() -> None:
    backs = [
        action for action in said(state(a=Setup("failed", "exit code 1"))) if isinstance(action, GiveBack)
    ]
    assert [(item.panda_id, back.reason) for back in backs for item in back.jobs] == [
        (1, "set-up script /a: exit code 1"),
        (4, "set-up script /a: exit code 1"),
    ]


def test_a_script_is_given_up_when_its_time_is_over_and_not_before() -> None:
    running = state(a=Setup("running", "", 300.0))
    assert not [a for a in said(running, 299.9) if isinstance(a, GiveUpSetup)]
    assert GiveUpSetup("/a") in said(running, 300.0)
    assert next_due_s(running, 0.0, Limits(), 3600.0) == 300.0


def test_no_script_is_run_for_jobs_that_are_gone_or_go_back() -> None:
    none = state()._replace(pending=())
    assert said(none) == (EndAgent("list worked"),)
    assert not [a for a in said(state()._replace(stop="x")) if isinstance(a, BeginSetup)]
    assert not [a for a in said(state()._replace(closed=True)) if isinstance(a, BeginSetup)]


def test_what_a_script_made_is_the_difference_without_what_its_shell_did() -> None:
    before = {"PATH": "/bin", "GONE": "1", "HOME": "/own"}
    after = {
        "PATH": "/soft:/bin",
        "HOME": "/own",
        "NEW": "x",
        "PWD": "/soft",
        "_": "/usr/bin/env",
        "SHLVL": "0",
    }
    made = difference(before, after)
    assert made == Made((("PATH", "/soft:/bin"), ("NEW", "x")), ("GONE",))
    own = applied({"PATH": "/bin", "GONE": "1", "HOME": "/work"}, made)
    assert own == {"PATH": "/soft:/bin", "NEW": "x", "HOME": "/work"}


def test_an_environment_that_was_cut_off_is_none() -> None:
    assert parse_environment(b"A=1\0B=x=y\0") == {"A": "1", "B": "x=y"}
    assert parse_environment(b"A=1\0B=x") is None
    assert parse_environment(b"") is None
