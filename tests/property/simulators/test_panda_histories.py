"""Any history of calls keeps the server's own rules, and time in one step is time in many."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.panda.job import FINAL
from simulators.panda.jobspec import ATTRIBUTES, parse_jobs
from simulators.panda.model import PandaModel
from simulators.panda.rules import PILOT_STATES, PandaTimes, Wish

REPORT = json.dumps({"l.tgz": {"guid": "g", "fsize": 1, "adler32": "00000001"}})
STEPS = st.one_of(
    st.tuples(st.just("submit"), st.integers(1, 3), st.integers(0, 2)),
    st.tuples(st.just("fetch"), st.integers(0, 4), st.just(0)),
    st.tuples(st.just("update"), st.integers(0, 8), st.integers(0, 11)),
    st.tuples(st.just("end"), st.integers(0, 8), st.sampled_from([0, 2, 3, 9])),
    st.tuples(st.just("wait"), st.sampled_from([1, 15, 1000, 8000, 700_000]), st.just(0)),
)


def positional(priority: int) -> list[Any]:
    values = {"jobName": "j", "computingSite": "Q", "prodSourceLabel": "prod_test", "attemptNr": 1}
    values["currentPriority"] = priority  # type: ignore[assignment]
    files = [["NULL", "NULL", "NULL", "l.tgz", "log", *["NULL"] * 13, None]]
    return [*(values.get(name, "NULL") for name in ATTRIBUTES), files]


class World:
    """One server; waits are made in steps of at most `stride_s`."""

    def __init__(self, stride_s: float) -> None:
        self.model, self.at_s, self.stride_s = PandaModel(PandaTimes()), 0.0, stride_s
        self.handed: list[int] = []

    def play(self, steps: list[tuple[str, int, int]]) -> None:
        for kind, a, b in steps:
            ids = list(self.model.jobs)
            match kind:
                case "submit":
                    self.model.submit(parse_jobs([positional(1000 * b)] * a))
                case "fetch":
                    self.handed += [job.panda_id for job in self.model.hand_out(Wish("Q", a))]
                case "update" if ids:
                    state = sorted(PILOT_STATES)[b % 6]
                    attempt = 1 if b < 9 else None
                    self.model.update(ids[a % len(ids)], state, attempt, {"report": REPORT})
                case "end" if ids:
                    self.model.order_end(ids[a % len(ids)], str(b) if b else None)
                case "wait":
                    self.wait(float(a))
            self.check()

    def wait(self, seconds: float) -> None:
        end_s = self.at_s + seconds
        while self.at_s < end_s:
            self.at_s = min(end_s, self.at_s + self.stride_s)
            self.model.advance(self.at_s)

    def check(self) -> None:
        counted: dict[str, int] = {}
        for job in self.model.jobs.values():
            if job.status not in FINAL:
                counted[job.status] = counted.get(job.status, 0) + 1
            words = [status for _, status in job.history]
            assert job.archived == (job.status in FINAL)
            assert not FINAL.intersection(words[:-1])
            assert [at for at, _ in job.history] == sorted(at for at, _ in job.history)
            assert words[-1] == job.status
        assert counted == {k: n for k, n in self.model.counts.get("Q", {}).items() if n}
        assert len(self.handed) == len(set(self.handed))


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_any_history_keeps_the_rules_and_time_may_pass_in_any_steps(
    steps: list[tuple[str, int, int]],
) -> None:
    leap, walk = World(1e9), World(7000.0)
    leap.play(steps)
    walk.play(steps)
    told = [[(job.panda_id, job.status, job.history) for job in w.model.jobs.values()] for w in (leap, walk)]
    assert told[0] == told[1]
