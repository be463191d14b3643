"""What must be so of prodsys' rows: checkers against what the servers know, and directed scenarios of its wire.

The truth is the history of each PanDA job in its server, never a row of prodsys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from random import Random

from prodsys_core.lifecycle import StepKind
from simulators.panda.dispatch import HttpReply, HttpRequest
from simulators.panda.job import FINAL, PandaJob
from simulators.panda.model import PandaModel
from simulators.world.checkers import Violation
from simulators.world.panda import NoAnswer, Wire
from simulators.world.production import Killed, Production

TICK_S = 300.0


def attempts_alive_at_once(production: Production) -> Iterator[str]:
    """Two PanDA jobs of one step, each an attempt of its own, lived in the servers at one time."""
    jobs = {
        str(job.attributes.get("jobName")): job
        for wire in production.wires.values()
        for job in wire.model.jobs.values()
    }
    for step in production.steps.values():
        found = [(attempt, jobs[attempt.job_name]) for attempt in step.attempts if attempt.job_name in jobs]
        lives = sorted((_begins_s(job), attempt.number, job) for attempt, job in found)
        for (_, number, job), (begins_s, later, _) in pairwise(lives):
            if begins_s < _ends_s(job):
                yield f"{step.work}: attempt {later} was in PanDA at {begins_s:.0f} s, attempt {number} lived"


def accepted_though_not_finished(production: Production) -> Iterator[str]:
    """An attempt counts as finished whose PanDA job is there and did not finish."""
    jobs = {job.panda_id: job for wire in production.wires.values() for job in wire.model.jobs.values()}
    for step in production.steps.values():
        job = jobs.get(step.accepted.panda_id or 0) if step.accepted is not None else None
        if job is not None and job.status != "finished":
            yield f"{step.work} is finished, its PanDA job {job.panda_id} is {job.status}"


def accepted_twice(production: Production) -> Iterator[str]:
    """Two attempts of one step were accepted as finished."""
    for step in production.steps.values():
        names = {a.job_name for a in step.attempts if (a.ended or "").startswith("finished")}
        if len(names) > 1 and step.accepted is not None:
            yield f"{step.work}: {sorted(names)}"


def merged_before_last_chunk(production: Production) -> Iterator[str]:
    """A merge was in PanDA before the last chunk of its run was finished there."""
    jobs = {
        str(job.attributes.get("jobName")): job
        for wire in production.wires.values()
        for job in wire.model.jobs.values()
    }
    last_s: dict[int, float] = {}
    for step in production.steps.values():
        if step.kind is StepKind.RECONSTRUCT:
            ends = [_finished_s(jobs[a.job_name]) for a in step.attempts if a.job_name in jobs]
            last_s[step.run] = max(last_s.get(step.run, 0.0), min(ends, default=float("inf")))
    for step in production.steps.values():
        if step.kind is not StepKind.RECONSTRUCT:
            begun = [_begins_s(jobs[a.job_name]) for a in step.attempts if a.job_name in jobs]
            if begun and min(begun) < last_s[step.run]:
                yield f"run {step.run}: merged from {min(begun):.0f} s on, its last chunk {last_s[step.run]:.0f} s"


def _begins_s(job: PandaJob) -> float:
    return job.history[0][0]


def _ends_s(job: PandaJob) -> float:
    """When it reached its end state; for ever where it has none."""
    return min((at_s for at_s, status in job.history if status in FINAL), default=float("inf"))


def _finished_s(job: PandaJob) -> float:
    return min((at_s for at_s, status in job.history if status == "finished"), default=float("inf"))


PRODSYS: Mapping[str, Callable[[Production], Iterator[str]]] = {
    check.__name__: check
    for check in (
        attempts_alive_at_once,
        accepted_though_not_finished,
        accepted_twice,
        merged_before_last_chunk,
    )
}


def prodsys_violations(production: Production) -> list[Violation]:
    """All violations of prodsys' rows."""
    return [Violation(name, story) for name, check in PRODSYS.items() for story in check(production)]


# --- directed scenarios -----------------------------------------------------------------------------------------


class Submitter:
    """prodsys and one server without any pilot, on a clock of their own."""

    def __init__(self, seed: int, steps: int) -> None:
        self.now_s, self.random = 0.0, Random(f"{seed}:submitter")
        self.wire = Wire("panda", PandaModel(), lambda: self.now_s, lambda what: None)
        self.late: list[tuple[float, Callable[[], HttpReply]]] = []
        self.boundary: Callable[[], None] = lambda: None
        self.production = Production(
            {"panda": self.wire}, {"Q-long": "panda"}, lambda: self.now_s, lambda: self.boundary()
        )
        for chunk in range(steps):
            self.production.add(StepKind.RECONSTRUCT, 1, chunk, "Q-long", 100)

    def run(self, seconds: float) -> None:
        """Ticks, and what the server does late."""
        ends_s = self.now_s + seconds
        while self.now_s < ends_s:
            due = sorted((item for item in self.late if item[0] <= self.now_s), key=lambda item: item[0])
            self.late = [item for item in self.late if item[0] > self.now_s]
            for _, work in due:
                work()
            try:
                self.production.tick()
            except Killed:
                pass  # started again with the next tick
            self.now_s += TICK_S


def submission_goes_on(seed: int) -> Production:
    """The server stores jobs minutes after its client has gone; prodsys looks for them meanwhile."""
    world = Submitter(seed, 30)

    def spoil(wire: Wire, client: str, request: HttpRequest, work: Callable[[], HttpReply]) -> HttpReply:
        if request.path.endswith("job/submit") and world.now_s < 600.0:
            world.late.append((world.now_s + world.random.uniform(310.0, 800.0), work))
            raise NoAnswer("time out")
        return work()

    world.wire.spoil = spoil
    world.run(3 * 3600.0)
    return world.production


def killed_around_a_submission(seed: int) -> Production:
    """prodsys is killed between the commit of a batch and its call, or before it has stored the answer."""
    world = Submitter(seed, 60)

    def boundary() -> None:
        if world.now_s < 3600.0 and world.random.random() < 0.5:
            raise Killed

    world.boundary = boundary
    world.run(4 * 3600.0)
    return world.production


def ended_by_a_person(seed: int) -> Production:
    """A person ends some of the jobs that wait in PanDA."""
    world = Submitter(seed, 30)
    world.run(1800.0)
    for job in world.random.sample(list(world.wire.model.jobs.values()), 5):
        assert world.wire.model.order_end(job.panda_id, None, "a person")
    world.run(2 * 3600.0)
    return world.production


PRODSYS_SCENARIOS: Mapping[str, Callable[[int], Production]] = {
    scenario.__name__: scenario
    for scenario in (submission_goes_on, killed_around_a_submission, ended_by_a_person)
}
