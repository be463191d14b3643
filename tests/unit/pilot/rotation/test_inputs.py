"""Inputs of a job are looked at before it enters a bundle; bad ones end it uncharged, and no slot is taken."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig import Rig, Site, make_job, make_limits

from pilot.multijob import actions as a
from pilot.multijob.events import BundlePlanned, JobJudged
from pilot.multijob.inputfiles import FileInputs
from pilot.multijob.model import Limits
from pilot.multijob.recognise import Now
from pilot.ports import InputSeen, InputsSeen, Job, PandaId, Unavailable
from pilot.rotation.why import why

NOW = "2026-01-01T12:00:00+00:00"


def job_with(number: int, *paths: str) -> Job:
    job = make_job(number)
    return replace(job, job_pars=f"PRODSYS_INPUTS={':'.join(paths)} {job.job_pars}")


def limits_with(**changes: Any) -> Limits:
    limits = make_limits()
    queue = replace(limits.queues["long"], fill_wait_s=0.0, slots=1, nodes=1)
    return replace(limits, queues={"long": queue}, input_quiet_s=10.0, **changes)


class Looking(Site):
    """A site whose filesystem says `seen` of each job's inputs."""

    def __init__(self, jobs: list[Job], seen: Any) -> None:
        super().__init__(jobs)
        self.seen = seen

    def respond(self, action: Any) -> Any:
        if not isinstance(action, a.LookAtInputs):
            return super().respond(action)
        if isinstance(self.seen, Unavailable):
            return self.seen
        return InputsSeen(dict.fromkeys(action.paths, self.seen))


def planned(rig: Rig) -> set[int]:
    events = [event for event in rig.events if isinstance(event, BundlePlanned)]
    return {int(panda_id) for event in events for node in event.nodes for panda_id in node}


def verdicts(rig: Rig) -> list[tuple[int, str, str]]:
    return [
        (event.verdict.code, event.verdict.charge, event.verdict.reason)
        for event in rig.events
        if isinstance(event, JobJudged)
    ]


def test_a_job_enters_a_bundle_once_its_input_has_kept_its_size() -> None:
    rig, site = Rig(limits_with()), Looking([job_with(1, "/in/a")], InputSeen((5,)))
    rig.run(site.respond, 8, 1.0)
    assert not planned(rig)
    text = why(rig.state, rig.memory, "1", Now(NOW, rig.now_s), rig.limits)[0]
    assert "it is seen whether an input still grows" in text
    rig.run(site.respond, 20, 1.0)
    assert planned(rig) == {1}
    assert not rig.memory.inputs


def test_where_the_edge_cannot_see_inputs_no_job_waits_for_a_look() -> None:
    rig = Rig(limits_with(input_look=False))
    site = Looking([job_with(1, "/in/a")], InputSeen((), trouble="it is not there"))
    rig.run(site.respond, 6, 1.0)
    assert planned(rig) == {1}
    assert not any(isinstance(action, a.LookAtInputs) for action in rig.released)


def test_a_job_without_inputs_waits_for_no_look() -> None:
    rig, site = Rig(limits_with()), Looking([make_job(1)], InputSeen((), unknown="never asked"))
    rig.run(site.respond, 6, 1.0)
    assert planned(rig) == {1}


def test_an_input_that_grows_is_waited_for_and_gives_up_in_the_end() -> None:
    rig, site = Rig(limits_with(input_wait_s=100.0)), Looking([job_with(1, "/in/a")], InputSeen((1,)))
    for size in range(2, 15):
        site.seen = InputSeen((size,))
        rig.run(site.respond, 10, 1.0)
    assert not planned(rig)
    ((code, charge, reason),) = verdicts(rig)
    assert (code, charge) == (1103, "site") and "still grows" in reason


def test_a_missing_input_ends_the_job_uncharged_and_its_neighbours_go_on() -> None:
    rig = Rig(limits_with())
    site = Looking([job_with(1, "/in/a"), make_job(2)], InputSeen((), trouble="/in/a is not there"))
    rig.run(site.respond, 4, 1.0)
    # Seen late, perhaps: visible_s is 10.
    assert not verdicts(rig) and planned(rig) == {2}
    rig.run(site.respond, 30, 1.0)
    ((code, charge, reason),) = verdicts(rig)
    assert (code, charge) == (1103, "site") and "/in/a is not there" in reason
    assert planned(rig) == {2}


def test_an_input_that_is_seen_late_ends_nothing() -> None:
    rig = Rig(limits_with())
    site = Looking([job_with(1, "/in/a")], InputSeen((), trouble="/in/a is not there"))
    rig.run(site.respond, 5, 1.0)
    site.seen = InputSeen((7,))
    rig.run(site.respond, 40, 1.0)
    assert planned(rig) == {1} and not verdicts(rig)


@pytest.mark.parametrize("seen", [InputSeen((), unknown="/in/a: I/O error"), Unavailable("lane")])
def test_what_cannot_be_looked_at_waits_and_is_no_verdict(seen: Any) -> None:
    rig, site = Rig(limits_with(input_wait_s=10.0)), Looking([job_with(1, "/in/a")], seen)
    rig.run(site.respond, 300, 10.0)
    assert not verdicts(rig) and not planned(rig)
    assert rig.state.pools["long"] == {1: None}


def test_looks_go_on_after_a_restart_and_one_is_under_way_at_most() -> None:
    jobs = [job_with(number, *(f"/in/{number}.{part}" for part in range(600))) for number in (1, 2)]
    rig, site = Rig(limits_with()), Looking(jobs, InputSeen((1,)))
    rig.run(lambda action: None if isinstance(action, a.LookAtInputs) else site.respond(action), 5, 1.0)
    assert len(rig.memory.in_flight) and ("inputs", "long") in rig.memory.in_flight
    again = rig.restart()
    looks = [x for x in again.run(site.respond, 3, 1.0) if isinstance(x, a.LookAtInputs)]
    assert [len(look.paths) for look in looks[:2]] == [1, 1]


@settings(max_examples=60, deadline=None)
@given(
    looks=st.lists(
        st.sampled_from(
            [InputSeen((1,)), InputSeen((2,)), InputSeen((), trouble="gone"), InputSeen((), unknown="?")]
        ),
        max_size=40,
    )
)
def test_nothing_enters_a_bundle_whose_input_was_not_steady(looks: list[InputSeen]) -> None:
    rig, site = Rig(limits_with()), Looking([job_with(1, "/in/a")], InputSeen((1,)))
    told: list[tuple[float, InputSeen]] = []

    def respond(action: Any) -> Any:
        if isinstance(action, a.LookAtInputs):
            told.append((rig.now_s, site.seen))
        return site.respond(action)

    for seen in looks:
        site.seen = seen
        before = bool(planned(rig))
        rig.run(respond, 2, 3.0)
        if planned(rig) and not before:
            steady = [item for item in told if not item[1].unknown]
            last = steady[-1]
            since_s = last[0]
            for at_s, item in reversed(steady):
                if item != last[1]:
                    break
                since_s = at_s
            assert last[1].sizes and last[0] - since_s >= 10.0


def test_the_files_of_a_site_are_told_as_they_are(tmp_path: Path) -> None:
    good, empty, pipe, secret = (tmp_path / name for name in ("good", "empty", "pipe", "secret"))
    good.write_bytes(b"12345")
    empty.write_bytes(b"")
    os.mkfifo(pipe)
    secret.write_bytes(b"1")
    secret.chmod(0)
    paths = {
        PandaId(1): [str(good), str(good)],
        PandaId(2): [str(good), str(empty)],
        PandaId(3): [str(pipe)],
        PandaId(4): [str(tmp_path / "none")],
        PandaId(5): [str(tmp_path)],
        PandaId(6): [str(good / "below")],
    }
    seen = FileInputs().look(paths).jobs
    assert seen[PandaId(1)] == InputSeen((5, 5))
    troubles = {int(panda_id): item.trouble.rpartition(" is ")[2] for panda_id, item in seen.items()}
    assert troubles == {1: "", 2: "empty", 3: "no file", 4: "not there", 5: "no file", 6: "not there"}
    if os.geteuid():
        assert "may not be read" in FileInputs().look({PandaId(1): [str(secret)]}).jobs[PandaId(1)].trouble
