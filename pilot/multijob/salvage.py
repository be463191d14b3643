"""Salvage: a further PandaID of work that another job does or has done is bound to it and does not run again. Pure.

The server gives a job up that it has not heard of for two hours; it runs on here as an orphan, its outputs are placed.
prodsys sends the same work (`PRODSYS_WORK`) under a new PandaID. That one follows the orphan; when the evidence is
complete the outputs get a second link under the names that it declares, and only then it is judged finished (DESIGN 3).
A submission that was stored twice gives two live jobs of one work: the second one follows the first in the same way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from pilot.experiments.jobtext import BadJobText, parse_job_text
from pilot.experiments.words import place_outputs
from pilot.multijob.actions import Action, LinkOutputs
from pilot.multijob.events import Event, JobBound, JobUnbound, KillOrdered
from pilot.multijob.jobkeys import UNNAMED, panda_id_of
from pilot.multijob.keptjob import short_work
from pilot.multijob.knownjobs import key_of
from pilot.multijob.memory import Memory
from pilot.multijob.model import Bundle, BundleState, JobRecord, JobState, Limits, State
from pilot.multijob.verdict import failed, file_guid, judged
from pilot.ports import Job, JobKey, JobStatus, PandaId

# A base that is longer shares the fate of those that begin alike.
TASK_BASE_MAX = 300


def work_of(job: Job, server: str) -> str | None:
    """What names the work of a job, None if it has no key or its text makes no sense.

    A key is its production system's own: two servers, or two kinds of work, may use the same one for different things.
    """
    try:
        work = parse_job_text(job.job_pars).work
    except BadJobText:
        return None
    return None if work is None else f"{server}/{job.panda_queue}/{job.transformation}/{work}"


def task_of(job: Job, queue: str, limits: Limits) -> str | None:
    """What names the task of a job as seen from here: kind of work and base of its outputs. None: no usable text."""
    try:
        environment = parse_job_text(job.job_pars).environment
    except BadJobText:
        return None
    base = "".join(environment.get(name, "") for name in limits.experiment.base)
    return f"{queue}/{job.transformation}/{base[:TASK_BASE_MAX]}"


def bind(state: State, job: Job, server: str, work: str | None, utc: str) -> Iterator[Event]:
    """Bind a job that was just fetched from `server` to the one that delivers its work already."""
    short = short_work(work)
    leader = state.works.get(short) if short is not None else None
    leading = state.jobs.get(leader) if leader is not None else None
    own = key_of(state, server, job.panda_id)
    if leading is not None and leading.key != own and _delivers(leading):
        yield JobBound(utc, job.panda_id, leading.panda_id, server, leading.server)


def _delivers(leading: JobRecord) -> bool:
    """Whether this job waits for its bundle, is at work, or has finished."""
    if leading.verdict is not None:
        return leading.verdict.status is JobStatus.FINISHED
    if leading.state is JobState.POOLED:
        return not leading.orphaned
    return leading.state in (JobState.BUNDLED, JobState.STARTED)


def bundles_of(
    state: State, server: str, panda_ids: Iterable[PandaId], elsewhere: Collection[str] = ()
) -> dict[PandaId, tuple[Bundle, str]]:
    """The newest bundle in place that has had each job of this server, and the server's name as it knows it; jobs that
    are new here are not in it.

    One pass over all bundles for a whole fetch: there are hundreds of both. `elsewhere`: queues of other servers, to
    which jobs of them belong that no server's name is known of.
    """
    wanted = _wanted(state, server, panda_ids)
    found: dict[PandaId, tuple[Bundle, str]] = {}
    for bundle in state.bundles.values() if wanted else ():
        if bundle.state is not BundleState.PLANNED:
            for node in bundle.nodes:
                for key in wanted.keys() & node:
                    name, panda_id = wanted[key]
                    if name == server or bundle.queue not in elsewhere:
                        found[panda_id] = bundle, name
    return found


def retired_of(
    state: State, server: str, panda_ids: Iterable[PandaId], elsewhere: Collection[str] = ()
) -> set[PandaId]:
    """Those of these jobs of this server that a bundle has had whose directory is removed after its retention.

    Numbers rise with time: those of a usual fetch are above all that is remembered, and nothing is searched.
    """
    wanted = _wanted(state, server, panda_ids)
    found: set[PandaId] = set()
    if not wanted:
        return found
    low, high = min(wanted), max(wanted)
    for retired in state.retired.values():
        keys = retired.keys
        if keys and keys[0] <= high and keys[-1] >= low:
            for key in wanted.keys() & keys:
                name, panda_id = wanted[key]
                if name == server or retired.queue not in elsewhere:
                    found.add(panda_id)
    return found


def _wanted(state: State, server: str, panda_ids: Iterable[PandaId]) -> dict[int, tuple[str, PandaId]]:
    """Server's name and PandaID by every key under which bundles may have had these jobs; none of open ones."""
    names = {server, UNNAMED} & set(state.servers)
    wanted = {key_of(state, name, panda_id): (name, panda_id) for panda_id in panda_ids for name in names}
    return {key: value for key, value in wanted.items() if key not in state.jobs}


def decide_bound(
    state: State, memory: Memory, utc: str, now_s: float, limits: Limits
) -> Iterator[Event | Action]:
    """What becomes of the jobs that follow another one; nothing while a directory may tell more of them."""
    if state.bound and memory.undecided() is not None:
        return
    codes = limits.experiment.codes
    for key, leader in list(state.bound.items()):
        record, leading = state.jobs[key], state.jobs.get(leader)
        panda_id, server = record.panda_id, record.server
        if record.kill_ordered:
            if leading is not None and leading.verdict is None and not leading.kill_ordered:
                yield KillOrdered(utc, leading.panda_id, server=leading.server)
            yield judged(record, failed(codes["killed"], "while it followed"), utc)
        elif record.orphaned:
            yield judged(record, failed(codes["lost"], "given up again"), utc)
        elif leading is None or not _delivers(leading):
            yield JobUnbound(utc, panda_id, f"job {panda_id_of(leader)} came to nothing", server)
        elif leading.verdict is not None:
            action = LinkOutputs(key, output_pairs(leading.job, record.job, limits))
            if not action.pairs:
                yield JobUnbound(utc, panda_id, f"job {leading.panda_id} declared other outputs", server)
            elif not memory.waiting(action.key, now_s):
                yield action


def output_pairs(old: Job, new: Job, limits: Limits) -> tuple[tuple[str, str], ...]:
    """(place of the old job's output, place of the new one's) in the order declared; empty where they do not match."""
    old_places, new_places = _places(old, limits), _places(new, limits)
    same = len(old.outputs) == len(new.outputs) and (old.log_lfn is None) == (new.log_lfn is None)
    return tuple(zip(old_places, new_places, strict=True)) if same and old_places and new_places else ()


def _places(job: Job, limits: Limits) -> tuple[str, ...]:
    lfns = (*job.outputs, *((job.log_lfn,) if job.log_lfn else ()))
    try:
        environment = parse_job_text(job.job_pars).environment
    except BadJobText:
        return ()
    placed = place_outputs(limits.experiment, limits.site.output_root, environment, lfns)
    return () if isinstance(placed, str) else tuple(place.target for place in placed)


def judged_by_link(state: State, action: LinkOutputs, utc: str) -> Iterator[Event]:
    """The links are there: the new job has finished, with the old one's facts under its own names and guids."""
    record = state.jobs.get(action.job)
    leading = state.jobs.get(state.bound.get(action.job, JobKey(0)))
    if record is None or leading is None or leading.verdict is None:
        return
    old = (*leading.job.outputs, leading.job.log_lfn)
    new = (*record.job.outputs, record.job.log_lfn)
    names = {lfn: other for lfn, other in zip(old, new, strict=False) if lfn and other}
    report = tuple(
        replace(item, lfn=names[item.lfn], guid=file_guid(record.job, names[item.lfn]))
        for item in leading.outcome.report
        if item.lfn in names
    )
    outcome = replace(leading.outcome, report=report)
    yield judged(record, leading.verdict, utc, outcome)
