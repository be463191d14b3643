"""Agents of the virtual world: the real plan, job and placement steps, with payloads that only take time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from pilot.multijob.node import files, plan
from pilot.multijob.node.gate import parse_object
from pilot.multijob.node.journal import render_line
from pilot.multijob.node.manifest import Job, Manifest
from pilot.multijob.node.steps import (
    Collect,
    Collected,
    JobResult,
    Line,
    PayloadEnd,
    RunPayload,
    job_steps,
    look,
    not_placed,
    placement_steps,
)
from simulators.world.files import VirtualFiles
from simulators.world.truth import PayloadRun, Truth


@dataclass(slots=True)
class Task:
    """A gate or agent process. `hanging`: nothing of it goes on until it is let go; `deferred` is what waits."""

    client: str
    batch_id: str
    dead: bool = False
    hanging: bool = False
    deferred: list[Callable[[], None]] = field(default_factory=list)


@dataclass(slots=True)
class Floor:
    """What everything on the nodes shares. `hang_s(client, operation)`: how long a process hangs before it."""

    shared: VirtualFiles
    truth: Truth
    now: Callable[[], float]
    at: Callable[[float, Callable[[], None]], None]
    random: Random
    run_s: Callable[[Job], float]
    operation_s: tuple[float, float] = (0.01, 0.2)
    hang_s: Callable[[str, Any], float] = field(default=lambda client, operation: 0.0)
    # counts faults of nodes that changed something
    fired: Callable[[str], None] = field(default=lambda kind: None)

    def later(self, task: Task, delay_s: float, call: Callable[[], None]) -> None:
        """Let the task go on with `call`, unless it is dead then; if it hangs, once it is let go."""
        self.at(self.now() + delay_s, partial(self._go_on, task, call))

    def _go_on(self, task: Task, call: Callable[[], None]) -> None:
        if task.dead:
            return
        if task.hanging:
            task.deferred.append(call)
        else:
            call()

    def hang(self, task: Task, seconds: float) -> None:
        """Nothing of this task goes on for so long."""
        task.hanging = True
        self.at(self.now() + seconds, partial(self._let_go, task))

    def _let_go(self, task: Task) -> None:
        task.hanging = False
        waiting, task.deferred = task.deferred, []
        for call in waiting:
            self._go_on(task, call)

    def drive(
        self, task: Task, steps: Any, perform: Callable[[Any, Callable[[Any], None]], bool], done: Any
    ) -> None:
        """Carry out the operations of `steps` one by one, each after a while; `done(value or OSError)` at its end.

        `perform(operation, reply)` takes the operations that are no file operations and returns whether it did.
        """

        def advance(reply: Any, error: OSError | None = None) -> None:
            try:
                operation = steps.throw(error) if error is not None else steps.send(reply)
            except StopIteration as stop:
                done(stop.value)
                return
            except OSError as failed:
                done(failed)
                return
            pause_s = (
                operation.seconds
                if isinstance(operation, files.Pause)
                else self.random.uniform(*self.operation_s)
            )
            hang_s = self.hang_s(task.client, operation)
            if hang_s:
                self.hang(task, hang_s)
            self.later(task, pause_s, partial(carry_out, operation))

        def carry_out(operation: Any) -> None:
            up_s = self.shared.faults.up_at()
            if up_s > self.now():
                self.later(task, up_s - self.now(), partial(carry_out, operation))
                return
            if perform(operation, advance):
                return
            try:
                reply = self.shared.perform(task.client, operation)
            except OSError as error:
                advance(None, error)
            else:
                advance(reply)

        advance(None)


class Agent:
    """One node's agent: what `pilot.multijob.node.agent` does, with the same plan, steps and journal lines."""

    def __init__(
        self, floor: Floor, task: Task, place: tuple[str, str, int, int], manifest: Manifest, nonce: str
    ) -> None:
        self.floor, self.task, self.manifest = floor, task, manifest
        self.bundle_id, self.directory, self.round, self.index = place
        self.started_s = floor.now()
        self.state = plan.NodeState(pending=manifest.jobs.get(self.index, ()))
        self.over = self.escaped = False
        self.node = 0
        self.ended: Callable[[], None] = lambda: None
        self.nonce = nonce
        self._journal = f"{self.directory}/node.{self.index}.{nonce}.journal"
        self._open = floor.shared.open_new(task.client, self._journal)
        self._lines = 0
        self._serial = 0
        self._runs: dict[int, PayloadRun] = {}
        self._replies: dict[int, Callable[[Any], None]] = {}
        self._line("agent_started", {"round": self.round, "node": self.index, "batch_id": task.batch_id})
        self._poll()

    # --- what is seen -----------------------------------------------------------------------------------------

    def _poll(self) -> None:
        """As the agent: look for `closed` and commands; what cannot be looked at is looked at again next time."""
        self.floor.later(self.task, self.manifest.limits.poll_s, self._poll_again)
        self._look()
        self.turn()

    def _poll_again(self) -> None:
        if not self.over:
            self._poll()

    def _look(self) -> None:
        path = self.directory + "/commands.json"
        perform = partial(self.floor.shared.perform, self.task.client)
        try:
            if files.run_steps(look(self.directory), perform):
                self._saw_closed()
            commands = parse_object(perform(files.Read(path))) if perform(files.Exists(path)) else None
        except OSError:
            return
        found = plan.asked_to_end(commands, self._serial)
        if found is not None:
            self._serial, jobs = found
            self.state = self.state._replace(asked_to_end=self.state.asked_to_end | jobs)

    def _saw_closed(self) -> None:
        if not self.state.closed:
            self.state = self.state._replace(closed=True)
            self._line("closed_seen", {})

    def terminate(self) -> None:
        """SIGTERM."""
        self.floor.later(self.task, 0.0, self._terminated)

    def _terminated(self) -> None:
        self.state = self.state._replace(terminated=True)
        self.turn()

    def die(self, why: str) -> None:
        """SIGKILL to it and to all of its payloads."""
        self.task.dead = self.over = True
        for run in self._runs.values():
            if run.end_s is None:
                run.end_s, run.ended_by = self.floor.now(), why

    # --- what is done -----------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Carry out everything that the plan wants done now, then wait for the next thing."""
        limits, left_s = self.manifest.limits, self.manifest.walltime_s
        while not self.over:
            actions = plan.decide(self.state, self._elapsed(), limits, self.manifest.slots, left_s)
            for action in actions:
                self._act(action)
            if not actions:
                due_s = plan.next_due_s(self.state, limits, left_s) - self._elapsed()
                self.floor.later(self.task, max(due_s, 0.1), self.turn)
                return

    def _elapsed(self) -> float:
        return self.floor.now() - self.started_s

    def _act(self, action: plan.Action) -> None:
        match action:
            case plan.StartJob(job, slot):
                pending = tuple(item for item in self.state.pending if item is not job)
                running = (*self.state.running, plan.Running(job, slot, self._elapsed()))
                self.state = self.state._replace(pending=pending, running=running)
                steps = job_steps(self.directory, job, slot)
                self.floor.drive(
                    self.task, steps, partial(self._perform, slot), partial(self._job_over, slot)
                )
            case plan.EndPayload(slot, why, grace_s):
                self._change(slot, ended_by=why, kill_at_s=self._elapsed() + grace_s)
                self.floor.at(self.floor.now() + min(1.0, grace_s), partial(self._end_payload, slot, why))
            case plan.KillPayload(slot):
                self._change(slot, killed=True)
                self._end_payload(slot, "killed")
            case plan.GiveBack(jobs, reason):
                pending = tuple(job for job in self.state.pending if job not in jobs)
                self.state = self.state._replace(pending=pending)
                back = [[job.panda_id, job.attempt_nr] for job in jobs]
                self._line("given_back", {"reason": reason, "jobs": back})
            case plan.EndAgent(reason):
                self._line("agent_ended", {"reason": reason, "left_behind": 0})
                self.die("agent ended")
                self.ended()
            case plan.GiveUpCaldb(_):
                raise AssertionError("the jobs of this world need no calibration server")

    def _change(self, slot: int, **changes: Any) -> None:
        running = tuple(i._replace(**changes) if i.slot == slot else i for i in self.state.running)
        self.state = self.state._replace(running=running)

    def _line(self, kind: str, body: dict[str, Any]) -> None:
        self._lines += 1
        text = render_line(self._lines, kind, "t", self._elapsed(), body).decode()
        self.floor.shared.append(self.task.client, self._journal, self._open, text)

    # --- one slot -----------------------------------------------------------------------------------------------

    def _perform(self, slot: int, operation: Any, reply: Callable[[Any], None]) -> bool:
        match operation:
            case Line(kind, body):
                self._line(kind, body)
                if kind == "job_ended" and slot in self._runs:
                    self._runs[slot].end_line_s = self.floor.now()
                reply(None)
            case RunPayload(job, _):
                self._spawn(slot, job, reply)
            case Collect():
                self.floor.drive(self.task, self._collect(operation), nothing_else, reply)
            case _:
                return False
        return True

    def _spawn(self, slot: int, job: Job, reply: Callable[[Any], None]) -> None:
        run = PayloadRun(
            job.panda_id,
            job.attempt_nr,
            self.bundle_id,
            self.round,
            self.task.batch_id,
            self.task.client,
            self.floor.now(),
        )
        self.floor.truth.payloads.append(run)
        self._runs[slot], self._replies[slot] = run, reply
        self.floor.at(self.floor.now() + self.floor.run_s(job), partial(self._payload_ends, slot, run))
        if any(item.slot == slot and item.killed for item in self.state.running):
            self._end_payload(slot, "killed")

    def _payload_ends(self, slot: int, run: PayloadRun) -> None:
        """By itself; a hanging agent hears of it later."""
        if run.end_s is None:
            run.end_s = self.floor.now()
            self.floor.later(self.task, 0.0, partial(self._reap, slot, run))

    def _end_payload(self, slot: int, why: str) -> None:
        run = self._runs.get(slot)
        if run is not None and run.end_s is None:
            run.end_s, run.ended_by = self.floor.now(), why
            self.floor.later(self.task, 0.0, partial(self._reap, slot, run))

    def _reap(self, slot: int, run: PayloadRun) -> None:
        ended_by = next((item.ended_by for item in self.state.running if item.slot == slot), None)
        wall_s = (run.end_s or 0.0) - run.start_s
        code, signal = (0, None) if run.ended_by is None else (None, 15)
        self._change(slot, placing=True)
        self._replies.pop(slot)(PayloadEnd(code, signal, ended_by, wall_s, wall_s, 1.0, "t", "t"))
        self.turn()

    def _collect(self, request: Collect) -> files.Steps[Collected]:
        job, entries = request.job, []
        places = [(place, request.place_outputs) for place in job.outputs]
        places += [(job.log, request.place_log)] if job.log is not None else []
        for number, (place, wanted) in enumerate(places):
            source = f"{self.task.client}:{job.panda_id}.{job.attempt_nr}:{place.lfn}"
            if not wanted:
                entries.append(not_placed(place, len(source), "not to be placed"))
                continue
            folder = place.target.rpartition("/")[0]
            temp = f"{folder}/.{job.panda_id}.{job.attempt_nr}.{self.nonce}.{number}.part"
            entry = yield from placement_steps(self.directory, source, len(source), place, temp)
            entries.append(entry)
        events = int(job.environment.get("PRODSYS_NEVENTS", "0"))
        return Collected(request.end.exit_code == 0, (), events, events, tuple(entries), "")

    def _job_over(self, slot: int, result: JobResult | OSError) -> None:
        running = tuple(item for item in self.state.running if item.slot != slot)
        self.state = self.state._replace(running=running)
        if isinstance(result, OSError):
            if self.state.stop is None:
                self.state = self.state._replace(stop=f"a job could not be worked: {result}")
        elif result.closed:
            self._saw_closed()
        self._look()
        self.turn()


def nothing_else(operation: Any, reply: Callable[[Any], None]) -> bool:
    """For steps that have file operations only."""
    return False
