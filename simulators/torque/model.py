"""The batch server as a pure model: time comes in with every call, what must be done comes out as values.

State machine of a batch job (letters as qstat prints them):

    submit -> Q (H when held, W until a time) -> R -> C -> unknown id after keep_completed
    Q, H -> delete -> C without an exit status
    R -> delete -> R until its script has ended -> C with 271;  walltime -> C with -11
    R -> requeue (rerunable only) -> Q, start_count grows at the next start
    R on a dead mother superior (no Cray mode): R for ever

Whoever owns the model calls inputs (`submit`, `delete`, `job_ended`...), then `advance(now)`, and carries out the
outputs. Facts: docs/facts of Torque 6.1.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from simulators.kernel import Timers
from simulators.torque.arrays import parse_array, parse_depend, verdict
from simulators.torque.errors import Pbse, TorqueError
from simulators.torque.job import (
    BatchJob,
    JobArray,
    JobOver,
    KillJob,
    Letter,
    Node,
    Output,
    StartJob,
    Stop,
    Submission,
    TerminateJob,
)
from simulators.torque.resources import parse_resources
from simulators.torque.schedule import (
    Layout,
    NodeRequest,
    Placement,
    Reservation,
    Running,
    Waiting,
    barred,
    place,
    plan_starts,
    reserve,
)
from simulators.torque.site import QueueSpec, TorqueSite

EXIT_WALLTIME = -11
EXIT_TERMINATED = 271


@dataclass(frozen=True, slots=True)
class _Due:
    """A timer: what happens to which batch job, if that is still in its start number `start`."""

    what: Callable[[float, BatchJob], None]
    batch_id: str
    start: int


class TorqueModel:
    """The batch server. Call `advance` after every input, and at `next_at`."""

    def __init__(self, site: TorqueSite) -> None:
        self.site = site
        self.jobs: dict[str, BatchJob] = {}
        self.arrays: dict[str, JobArray] = {}
        self.nodes = {number: Node(number) for number in range(1, site.nodes + 1)}
        self._sequence = site.first_sequence
        self.made_at = 0.0
        self._up_since = -math.inf
        self.reserved: list[Reservation] = []
        self._reservations = 0
        self._dependents: set[str] = set()
        self._timers: Timers[_Due | None] = Timers()
        self._outputs: list[Output] = []
        self._pass_at: float | None = None
        numbers = range(1, site.nodes + 1)
        # Both modes fill from the lowest number; cluster mode lists the highest first (captured exec_host lines).
        self._layout = Layout(
            order=tuple(numbers),
            features={number: frozenset(site.features_of(number)) for number in numbers},
            slots=site.slots,
            whole_nodes=site.cray,
            highest_first=not site.cray,
        )

    # --- time -----------------------------------------------------------------------------------------------

    def next_at(self) -> float | None:
        """When `advance` has something to do by itself; None: only after an input."""
        return self._timers.next_at()

    def advance(self, now: float) -> tuple[Output, ...]:
        """Let everything happen that is due by `now`; returns what must be done, in order."""
        while (due := self._timers.pop_due(now)) is not None:
            at, item = due
            if item is None:
                self._pass_at = None
                self._schedule(max(at, self._up_since))
                continue
            job = self.jobs.get(item.batch_id)
            if job is not None and job.start_count == item.start:
                item.what(at, job)
        outputs, self._outputs = tuple(self._outputs), []
        return outputs

    # --- inputs from users ----------------------------------------------------------------------------------

    def submit(self, now: float, submission: Submission) -> str | TorqueError:
        """Queue a batch job; returns its id. A refused submission burns a sequence number, as in Torque.

        An empty script is accepted with an id that does not exist afterwards, as in Torque.
        """
        sequence = self._sequence
        self._sequence += 1
        job = self._admit(now, sequence, submission)
        if isinstance(job, TorqueError):
            return job
        if submission.array is not None:
            return self._make_array(now, job)
        if submission.script.strip():
            self.jobs[job.batch_id] = job
            if job.depends:
                self._dependents.add(job.batch_id)
            self._want_pass(job.eligible_at)
        return job.batch_id

    @property
    def next_sequence(self) -> int:
        """Number of the next submission."""
        return self._sequence

    def drop_hold(self, now: float, job: BatchJob, hold: str) -> None:
        """Take one hold from a job; without any it is queued."""
        job.holds = job.holds.replace(hold, "")
        if job.state is Letter.HELD and not job.holds:
            job.state, job.changed_at = Letter.QUEUED, now
            job.eligible_at = now + self.site.start_delay_s
            self._want_pass(job.eligible_at)

    def queue_refuses(
        self, name: str, submission: Submission, parts: tuple[NodeRequest, ...], walltime_s: int
    ) -> TorqueError | None:
        """Why a queue would not take such a job; None if it would."""
        queue = self.site.queues.get(name)
        if queue is None:
            return TorqueError(Pbse.UNKQUE, "requested queue not found")
        return self._limits(name, queue, submission, parts, walltime_s)

    def delete(self, now: float, batch_id: str, user: str, kill: bool = False) -> TorqueError | None:
        """qdel. A waiting job is complete at once; a running one is asked to end (`kill`: ended at once)."""
        job = self.jobs.get(batch_id)
        if job is None:
            return TorqueError(Pbse.UNKJOBID)
        if job.submission.owner != user:
            return TorqueError(Pbse.PERM, "operation not permitted")
        if job.state is Letter.COMPLETE or job.script_ended_at is not None:
            word = "COMPLETE" if job.state is Letter.COMPLETE else "EXITING"
            return TorqueError(Pbse.BADSTATE, f"invalid state for job - {word}")
        if job.state is not Letter.RUNNING:
            self._complete(now, job)
        elif self._mother_dead(job):
            return TorqueError(Pbse.NORELYMOM)
        else:
            self._stop(now, job, Stop.DELETED)
            if kill:
                self._outputs.append(KillJob(batch_id))
        return None

    def requeue(self, now: float, batch_id: str, forced: bool = False) -> TorqueError | None:
        """qrerun by an operator: a running rerunable job goes back to its queue when its script has ended.

        `forced`: whether it is rerunable or not, as a server does that lost its MOM and found it again.
        """
        job = self.jobs.get(batch_id)
        if job is None:
            return TorqueError(Pbse.UNKJOBID)
        if job.state is not Letter.RUNNING:
            return TorqueError(Pbse.BADSTATE)
        if not job.submission.rerunable and not forced:
            return TorqueError(Pbse.NORERUN)
        if job.stop is None and job.script_ended_at is None:
            job.stop = Stop.REQUEUED
            self._outputs.append(KillJob(batch_id))
        return None

    def holes(self, now: float) -> tuple[tuple[int, float | None], ...]:
        """Backfill windows from now on: (nodes, seconds until a reservation needs them; None: nothing does).

        The reservation is that of the first waiting job; largest window first.
        """
        free = self._free()
        kept = barred(self.reserved, now, 1.0)
        idle = [n for n, slots in free.items() if len(slots) == self.site.slots and n not in kept]
        queued = [job for job in self.jobs.values() if job.state is Letter.QUEUED]
        if not queued:
            return ((len(idle), None),) if idle else ()
        running = [job for job in self.jobs.values() if job.state is Letter.RUNNING]
        first = min(queued, key=self._turn)
        ends = [Running(max(now, job.start + job.walltime_s), job.placement) for job in running]
        shadow_s, reserved = reserve(self._layout, free, first.parts, ends)
        unreserved = [number for number in idle if number not in reserved]
        windows = [(len(idle), shadow_s - now if shadow_s != math.inf else None), (len(unreserved), None)]
        return tuple(window for window in dict.fromkeys(windows) if window[0])

    def _turn(self, job: BatchJob) -> tuple[int, int]:
        """Smaller is earlier: priority, then first come first served."""
        return -self.site.queues[job.queue].priority - job.submission.priority, job.sequence

    # --- inputs from the machine ----------------------------------------------------------------------------

    def job_started(self, batch_id: str, session_id: int) -> None:
        """The script runs, as this session."""
        self.jobs[batch_id].session_id = session_id

    def job_ended(self, now: float, batch_id: str, exit_status: int) -> None:
        """The script of a running job has ended.

        `exit_status` as Torque gives it: the script's exit code, 128 + n by signal n, negative when it could not
        be started. What the server itself did to the job takes precedence.
        """
        job = self.jobs[batch_id]
        if job.state is not Letter.RUNNING or job.script_ended_at is not None or self._mother_dead(job):
            return
        job.script_ended_at = now
        match job.stop:
            case Stop.WALLTIME:
                job.exit_status = EXIT_WALLTIME
            case Stop.DELETED:
                job.exit_status = EXIT_TERMINATED
            case _:
                job.exit_status = exit_status
        self._timers.set(now + self.site.release_s, self._due(job, self._release))

    def purge(self, batch_id: str) -> None:
        """qdel -p by an operator: the job is forgotten, whatever it does; its id is unknown afterwards."""
        job = self.jobs.pop(batch_id)
        for share in job.placement:
            self.nodes[share.node].jobs.pop(batch_id, None)

    def output_undelivered(self, batch_id: str) -> None:
        """The output files could not be brought where the user wants them."""
        self.jobs[
            batch_id
        ].hint = "Unable to copy files back - please see the mother superior's log for exact details."

    def server_restarted(self, now: float) -> None:
        """pbs_server was ended and started: running jobs go on; what it knew of their start is lost.

        Nothing was started while it was away: what is due since then is due now.
        """
        self._up_since = now
        for job in self.jobs.values():
            if job.state is Letter.RUNNING:
                job.restarted = True

    def start_failed(self, now: float, batch_id: str, exit_status: int) -> None:
        """The MOM could not start the script and will be asked again: back to the queue, start_count grows."""
        job = self.jobs[batch_id]
        if job.state is Letter.RUNNING and job.script_ended_at is None:
            job.stop = Stop.REQUEUED
            self._release(now, job)
            job.exit_status = exit_status

    def node_died(self, number: int, now: float | None = None) -> None:
        """A node is gone, with everything that ran on it. Without `now` pbsnodes shows it at once."""
        self.nodes[number].up, self.nodes[number].died_at = False, now

    def node_back(self, now: float, number: int) -> None:
        """A dead node is there again, empty."""
        self.nodes[number].up = True
        self._want_pass(now)

    def reserve_nodes(self, starts_s: float, ends_s: float, nodes: frozenset[int]) -> None:
        """An operator's reservation (maintenance): what runs goes on, nothing starts that reaches into it."""
        self.reserved = [item for item in self.reserved if item.ends_s > starts_s]
        self.reserved.append(Reservation(starts_s, ends_s, nodes))
        self._want_pass(starts_s)

    def wake(self, now: float) -> None:
        """Something may start that could not before: let the scheduler look again."""
        self._want_pass(now)

    # --- admission ------------------------------------------------------------------------------------------

    def _admit(self, now: float, sequence: int, submission: Submission) -> BatchJob | TorqueError:
        name = submission.queue or self.site.default_queue
        queue = self.site.queues.get(name)
        if queue is None:
            return TorqueError(Pbse.UNKQUE, "requested queue not found")
        wanted = parse_resources(submission.resources, self.site, queue)
        if isinstance(wanted, TorqueError):
            return wanted
        no = self._limits(name, queue, submission, wanted.parts, wanted.walltime_s)
        if no is not None:
            return no
        depends = (
            parse_depend(submission.depend, self.site.server_name, self.jobs) if submission.depend else ()
        )
        if depends is None:
            return TorqueError(Pbse.BADDEPEND)
        if submission.array is not None and parse_array(submission.array) is None:
            return TorqueError(Pbse.BAD_ARRAY_REQ)
        waits = submission.start_after is not None and submission.start_after > now
        held = submission.held or bool(depends)
        eligible_at = max(now, submission.start_after or now) + self._start_delay_s(submission, wanted.parts)
        return BatchJob(
            sequence=sequence,
            batch_id=f"{sequence}.{self.site.server_name}",
            submission=submission,
            queue=name,
            parts=wanted.parts,
            walltime_s=wanted.walltime_s,
            state=Letter.HELD if held else Letter.WAITING if waits else Letter.QUEUED,
            created_at=now,
            changed_at=now,
            eligible_at=eligible_at,
            resources=wanted.shown,
            holds=("s" if depends else "") + ("u" if submission.held else ""),
            depends=depends,
        )

    def _start_delay_s(self, submission: Submission, parts: tuple[NodeRequest, ...]) -> float:
        """Site's delay, and the assumed one of a convex place for jobs that are not commtransparent."""
        delay_s = self.site.start_delay_s
        if self.site.convex_delay_s and ("flags", "commtransparent") not in submission.resources:
            delay_s += self.site.convex_delay_s * math.log2(sum(part.count for part in parts))
        return delay_s

    def _make_array(self, now: float, pattern: BatchJob) -> str:
        """One batch job for each index; those beyond the limit are held until others have ended."""
        indices, limit = parse_array(pattern.submission.array or "") or ((), None)
        server, sequence = self.site.server_name, pattern.sequence
        elements = []
        for place_in_line, index in enumerate(indices):
            job = replace(pattern, batch_id=f"{sequence}[{index}].{server}", index=index)
            if limit is not None and place_in_line >= limit:
                job.holds, job.state = job.holds + "l", Letter.HELD
            self.jobs[job.batch_id] = job
            elements.append(job.batch_id)
        array_id = f"{sequence}[].{server}"
        made = pattern.submission
        self.arrays[array_id] = JobArray(
            sequence, array_id, made, pattern.queue, pattern.resources, now, tuple(elements), limit
        )
        self._want_pass(pattern.eligible_at)
        return array_id

    def _limits(
        self,
        name: str,
        queue: QueueSpec,
        submission: Submission,
        parts: tuple[NodeRequest, ...],
        walltime_s: int,
    ) -> TorqueError | None:
        where = f"user {submission.owner}@localhost, queue {name}"
        if not queue.enabled:
            return TorqueError(Pbse.QUNOENB, f"queue is disabled: {where}")
        if queue.users is not None and submission.owner not in queue.users:
            return TorqueError(Pbse.PERM, f"user ACL rejected the submitting user: {where}")
        if queue.walltime_max_s is not None and walltime_s > queue.walltime_max_s:
            return TorqueError(Pbse.EXCQRESC, "cannot satisfy queue max walltime requirement")
        if queue.nodes_max is not None and sum(part.count for part in parts) > queue.nodes_max:
            return TorqueError(Pbse.EXCQRESC, "cannot satisfy queue max nodect requirement")
        everything = {number: tuple(range(self.site.slots)) for number in self.nodes}
        if place(self._layout, everything, parts) is None:
            return TorqueError(
                Pbse.EXCQRESC,
                "cannot locate feasible nodes (nodes file is empty, all systems are busy, or no nodes have the "
                "requested feature)",
            )
        there = [job for job in self.jobs.values() if job.queue == name and job.state is not Letter.COMPLETE]
        if queue.jobs_max is not None and len(there) >= queue.jobs_max:
            return TorqueError(
                Pbse.MAXQUED, f"total number of jobs in queue exceeds the queue limit: {where}"
            )
        own = sum(job.submission.owner == submission.owner for job in there)
        if queue.user_jobs_max is not None and own >= queue.user_jobs_max:
            return TorqueError(
                Pbse.MAXUSERQUED, f"total number of current user's jobs exceeds the queue limit: {where}"
            )
        return None

    # --- scheduler ------------------------------------------------------------------------------------------

    def _want_pass(self, at: float) -> None:
        """A scheduler pass at the first tick of its interval from `at` on."""
        tick = _tick(at, self.site.scheduler_interval_s)
        if self._pass_at is None or tick < self._pass_at:
            self._pass_at = tick
            self._timers.set(tick, None)

    def _schedule(self, now: float) -> None:
        queued = [job for job in self.jobs.values() if job.state in (Letter.QUEUED, Letter.WAITING)]
        queued = [job for job in queued if self.site.queues[job.queue].started]
        later = [job.eligible_at for job in queued if job.eligible_at > now]
        queued = [job for job in queued if job.eligible_at <= now]
        for job in queued:
            job.state = Letter.QUEUED
        queued.sort(key=self._turn)
        queued = self._eligible(queued)
        running = [job for job in self.jobs.values() if job.state is Letter.RUNNING]
        starts = plan_starts(
            self._layout,
            self._free(),
            [Waiting(job.batch_id, job.parts, job.walltime_s) for job in queued],
            [Running(max(now, job.start + job.walltime_s), job.placement) for job in running],
            now,
            self.reserved,
        )
        for batch_id, placement in starts:
            self._start(now, self.jobs[batch_id], placement)
        for job in queued:
            if job.state is Letter.QUEUED:
                job.comment = "Not Running: Not enough of the right type of nodes are available"
        later += [item.ends_s for item in self.reserved if item.ends_s > now]
        if later:
            self._want_pass(min(later))

    def _eligible(self, queued: list[BatchJob]) -> list[BatchJob]:
        """Without the blocked ones: of each user the first `eligible_max` in turn."""
        if self.site.eligible_max is None:
            return queued
        counts: dict[str, int] = {}
        eligible = []
        for job in queued:
            counts[job.submission.owner] = counts.get(job.submission.owner, 0) + 1
            if counts[job.submission.owner] <= self.site.eligible_max:
                eligible.append(job)
        return eligible

    def _free(self) -> dict[int, tuple[int, ...]]:
        free = {}
        for number, node in self.nodes.items():
            if node.up:
                held = {slot for slots in node.jobs.values() for slot in slots}
                whole = self.site.cray and node.jobs
                free[number] = () if whole else tuple(s for s in range(self.site.slots) if s not in held)
        return free

    # --- transitions ----------------------------------------------------------------------------------------

    def _start(self, now: float, job: BatchJob, placement: Placement) -> None:
        job.state, job.started_at, job.changed_at, job.placement = Letter.RUNNING, now, now, placement
        job.last_start_at = now
        job.start_count += 1
        job.exit_status, job.stop, job.script_ended_at = None, None, None
        self._reservations += 1
        job.reservation = self._reservations
        # Written by pbs_sched in cluster mode; in Cray mode another scheduler runs and writes none.
        job.comment = (
            "" if self.site.cray else f"{datetime.fromtimestamp(now, UTC):Job started on %a %b %d at %H:%M}"
        )
        for share in placement:
            self.nodes[share.node].jobs[job.batch_id] = share.slots
        looked_at = _tick(now + job.walltime_s, self.site.walltime_poll_s)
        self._timers.set(looked_at, self._due(job, self._overrun))
        self._outputs.append(StartJob(job.batch_id))

    def _overrun(self, now: float, job: BatchJob) -> None:
        if job.state is Letter.RUNNING and job.stop is None and not self._mother_dead(job):
            used = int(now - job.start)
            note = f"=>> PBS: job killed: walltime {used} exceeded limit {job.walltime_s}\n"
            self._stop(now, job, Stop.WALLTIME, note)

    def _stop(self, now: float, job: BatchJob, why: Stop, note: str = "") -> None:
        if job.stop is None and job.script_ended_at is None:
            job.stop = why
            self._outputs.append(TerminateJob(job.batch_id, note))
            self._timers.set(now + self.site.kill_delay_s, self._due(job, self._kill))

    def _kill(self, now: float, job: BatchJob) -> None:
        if job.state is Letter.RUNNING and job.script_ended_at is None and not self._mother_dead(job):
            self._outputs.append(KillJob(job.batch_id))

    def _release(self, now: float, job: BatchJob) -> None:
        for share in job.placement:
            self.nodes[share.node].jobs.pop(job.batch_id, None)
        self._outputs.append(JobOver(job.batch_id, job.placement))
        if job.stop is Stop.REQUEUED:
            job.state, job.placement, job.stop, job.changed_at = Letter.QUEUED, (), None, now
            job.started_at, job.script_ended_at = None, None
            job.eligible_at = now + self.site.start_delay_s
            self._want_pass(job.eligible_at)
        else:
            self._complete(now, job)

    def _complete(self, now: float, job: BatchJob) -> None:
        job.state, job.changed_at, job.completed_at = Letter.COMPLETE, now, now
        keep_s = self.site.queues[job.queue].keep_completed_s
        keep_s = self.site.keep_completed_s if keep_s is None else keep_s
        self._timers.set(now + keep_s, self._due(job, self._forget))
        self._want_pass(now)
        if job.index is not None:
            self._next_of_array(now, job)
        for batch_id in sorted(self._dependents):
            other = self.jobs.get(batch_id)
            if other is None or not other.depends or other.state is not Letter.HELD:
                self._dependents.discard(batch_id)
            else:
                self._dependency_ended(now, other, job)

    def _next_of_array(self, now: float, ended: BatchJob) -> None:
        array = self.arrays[f"{ended.sequence}[].{self.site.server_name}"]
        going = [self.jobs[i] for i in array.elements if i in self.jobs]
        if (
            array.limit is None
            or sum("l" not in j.holds and j.state is not Letter.COMPLETE for j in going) >= array.limit
        ):
            return
        waiting = next((job for job in going if "l" in job.holds and job.state is Letter.HELD), None)
        if waiting is not None:
            self.drop_hold(now, waiting, "l")

    def _dependency_ended(self, now: float, job: BatchJob, ended: BatchJob) -> None:
        kinds = [(kind, ended.batch_id in ids) for kind, ids in job.depends]
        if any(named and not verdict(kind, ended.exit_status) for kind, named in kinds):
            self._complete(now, job)
            return
        left = ((kind, tuple(i for i in ids if i != ended.batch_id)) for kind, ids in job.depends)
        job.depends = tuple((kind, ids) for kind, ids in left if ids)
        if not job.depends:
            self.drop_hold(now, job, "s")

    def _forget(self, now: float, job: BatchJob) -> None:
        del self.jobs[job.batch_id]
        array_id = f"{job.sequence}[].{self.site.server_name}"
        if job.index is not None and not any(i in self.jobs for i in self.arrays[array_id].elements):
            del self.arrays[array_id]

    def _mother_dead(self, job: BatchJob) -> bool:
        """The node that runs the script is dead (in Cray mode scripts run on a MOM node)."""
        if self.site.cray or not job.placement:
            return False
        return not self.nodes[job.placement[0].node].up

    def _due(self, job: BatchJob, what: Callable[[float, BatchJob], None]) -> _Due:
        return _Due(what, job.batch_id, job.start_count)


def _tick(at: float, step: float) -> float:
    """The first multiple of `step` that is not before `at`, whatever the rounding of large times."""
    tick = math.ceil(at / step) * step
    return tick if tick >= at else tick + step
