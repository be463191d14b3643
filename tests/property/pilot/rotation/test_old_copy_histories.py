"""Any history of a site, its daemon killed anywhere and begun again over any older copy of its journal.

No PandaID starts twice, no round is submitted twice, and in the end the server has an end of every job.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from oldcopies import FINAL, Place, begin_again, short_limits, start
from rig import make_job

from pilot.multijob.apply import replay
from pilot.multijob.codec import decode
from pilot.ports import Unavailable

JOBS = 14
STEP_S = 10.0
numbers = st.integers(0, 10**6)


class Histories(RuleBasedStateMachine):
    """One site; `commits`: lengths of the journal at which a copy of it may have been made."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Place([make_job(n) for n in range(1, JOBS + 1)], short_limits())
        self.rig = start(self.place)
        self.commits: list[int] = [0]

    def _tick(self, ticks: int) -> None:
        for _ in range(ticks):
            self.rig.run(self.place.respond, 1, STEP_S)
            if len(self.rig.durable) > self.commits[-1]:
                self.commits.append(len(self.rig.durable))

    @rule(ticks=st.integers(1, 12))
    def time_passes(self, ticks: int) -> None:
        self._tick(ticks)

    @rule(which=numbers, share=st.integers(1, 3))
    def a_batch_job_starts(self, which: int, share: int) -> None:
        waiting = self.place.waiting_jobs()
        if waiting:
            self.place.begin(waiting[which % len(waiting)], share)
        self._tick(2)

    @rule(which=numbers)
    def its_work_ends(self, which: int) -> None:
        running = self.place.running_jobs()
        if running:
            self.place.work_ends(running[which % len(running)])
        self._tick(2)

    @rule(which=numbers)
    def a_batch_job_vanishes(self, which: int) -> None:
        there = (*self.place.waiting_jobs(), *self.place.running_jobs())
        if there:
            del self.place.batch[there[which % len(there)]]
        self._tick(30)

    @rule(mask=numbers)
    def the_daemon_is_killed_in_a_tick(self, mask: int) -> None:
        """Some of what it released has its effect, no answer is heard."""
        for number, action in enumerate(self.rig.tick(STEP_S)):
            if mask >> number % 20 & 1:
                self.place.respond(action)
        self.rig = begin_again(self.rig, self.rig.durable)
        self.place.watch(self.rig)
        self._tick(1)

    @rule(which=numbers)
    def an_older_copy_is_put_back(self, which: int) -> None:
        length = self.commits[which % len(self.commits)]
        self.commits = [at for at in self.commits if at <= length]
        self.rig = begin_again(self.rig, self.rig.durable[:length])
        self.place.watch(self.rig)
        self._tick(1)

    @rule(ticks=st.integers(1, 10))
    def the_server_tells_no_status_for_a_while(self, ticks: int) -> None:
        self.place.asks = False
        for _ in range(ticks):
            self.rig.run(self._silent, 1, STEP_S)
        self.place.asks = True
        self._tick(1)

    def _silent(self, action: Any) -> Any:
        outcome = self.place.respond(action)
        return Unavailable("no answer") if type(action).__name__ == "AskStatus" else outcome

    @invariant()
    def nothing_runs_or_is_submitted_twice(self) -> None:
        twice = {panda_id: count for panda_id, count in self.place.runs.items() if count > 1}
        assert not twice
        assert not {name: count for name, count in self.place.names.items() if count > 1}

    @invariant()
    def the_journal_folds_to_the_state(self) -> None:
        assert replay(decode(record) for record in self.rig.durable) == self.rig.state

    def teardown(self) -> None:
        for _ in range(60):
            for batch_id in self.place.waiting_jobs():
                self.place.begin(batch_id)
            self._tick(3)
            for batch_id in self.place.running_jobs():
                self.place.work_ends(batch_id)
            self._tick(12)
            self.nothing_runs_or_is_submitted_twice()
            if not self.place.waiting and not self._open():
                break
        self._settle()
        assert not self._open(), self._story()
        assert not self.rig.memory.alarms

    def _settle(self) -> None:
        """Past every retention."""
        self._tick(80)

    def _open(self) -> dict[int, str]:
        return {i: status for i, status in self.place.server.items() if status not in FINAL}

    def _story(self) -> str:
        return f"{self._open()}\n" + "\n".join(map(repr, self.rig.events[-60:]))


Histories.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=16,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
)
TestHistories = Histories.TestCase
