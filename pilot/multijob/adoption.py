"""What a journal may have forgotten: bundle directories that it does not know, rounds of those that it knows. Pure.

A state directory can be an older copy of itself. The directories tell what went on since, and the server tells of which
jobs it has had the end: both are looked at before anything is fetched or bundled (DESIGN 3, Lease).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pilot.experiments.jobtext import BadJobText, parse_job_text
from pilot.multijob.actions import Action, AdoptBundle, FindBundles
from pilot.multijob.events import AdoptedJob, BundleAdopted, Event, JobFoundOver
from pilot.multijob.jobkeys import panda_id_of
from pilot.multijob.knownjobs import find_key, key_of
from pilot.multijob.memory import Memory, Unknown
from pilot.multijob.model import Bundle, JobState, Limits, QueueSpec, State
from pilot.multijob.salvage import task_of, work_of
from pilot.ports import (
    GONE,
    PANDA_ID_MAX,
    BundleId,
    BundlesFound,
    DirectorySeen,
    Failure,
    Job,
    JobKey,
    PandaId,
    Refused,
    ServerStatus,
)

# A manifest is looked at again so often, so many seconds apart: a write of another client may be seen late.
LOOKS, LOOK_AGAIN_S = 5, 10.0
# Set aside directories are looked at again so often: a person may have mended or removed them.
FIND_AGAIN_S = 600.0
# Directories that are read at once: other writes wait behind them in the lane.
ADOPTED_AT_ONCE = 8
# What the server calls a job that it still wants.
ALIVE = frozenset({"activated", "sent", "starting", "running", "holding", "transferring", "merging"})


# --- directories ------------------------------------------------------------------------------------------------


def decide_adoption(
    state: State, memory: Memory, utc: str, now_s: float, limits: Limits
) -> Iterator[Event | Action]:
    """List the directories, read those that are unknown, adopt them once the servers have told of all their jobs."""
    due = not memory.found_all or (bool(memory.set_aside) and now_s >= memory.find_again_s)
    if due and not memory.waiting(("find",), now_s):
        yield FindBundles()
    under_way = sum(key[0] == "adopt" for key in memory.in_flight)
    # All at once: a job may be in several, and only its last turn counts.
    ready = bool(memory.unknown)
    for bundle_id, unknown in memory.unknown.items():
        found = unknown.found
        if found is not None:
            ids = ((found.queue, item.job.panda_id) for item in found.jobs)
            asked = [item for item in ids if item not in memory.told]
            memory.to_ask.update(dict.fromkeys(asked))
            ready = ready and not asked
            continue
        ready = False
        if under_way < ADOPTED_AT_ONCE and not memory.waiting(("adopt", bundle_id), now_s):
            under_way += 1
            yield AdoptBundle(bundle_id)
    if ready:
        for bundle_id, unknown in list(memory.unknown.items()):
            assert unknown.found is not None
            yield from _adopted(state, memory, unknown.found, utc, limits)
            _decided(memory, bundle_id)
    if not memory.unknown:
        memory.told.clear()


def _adopted(state: State, memory: Memory, found: BundleAdopted, utc: str, limits: Limits) -> Iterator[Event]:
    """What the server has finished needs no verdict any more; what it has given up runs on here as an orphan."""
    jobs = []
    for item in found.jobs:
        panda_id = item.job.panda_id
        record = state.jobs.get(find_key(state, found.server, panda_id, limits))
        status = memory.told[found.queue, panda_id]
        if record is None or record.state not in (JobState.STARTED, JobState.JUDGED):
            if status != "finished":
                wanted = status in ALIVE or status in ("cancelled", "closed")
                server = found.server if record is None else record.server
                jobs.append(replace(item, orphaned=not wanted, server=server))
            elif record is not None:
                yield JobFoundOver(utc, panda_id, f"the server says {status}", record.server)
    yield replace(found, at=utc, jobs=tuple(jobs))
    memory.untold.update(key_of(state, item.server, item.job.panda_id) for item in jobs)


def _decided(memory: Memory, bundle_id: BundleId) -> None:
    memory.unknown.pop(bundle_id, None)
    if memory.set_aside.pop(bundle_id, None) is not None:
        memory.clear_alarm(f"foreign-bundle-{bundle_id}")


def recognise_search(
    state: State, memory: Memory, found: BundlesFound | DirectorySeen, now_s: float, limits: Limits
) -> None:
    """Which directories the journal does not know, and what one of them is."""
    if isinstance(found, DirectorySeen):
        recognise_directory(memory, found.bundle_id, found, now_s, limits)
        return
    memory.found_all, memory.find_again_s = True, now_s + FIND_AGAIN_S
    for bundle_id in found.bundle_ids:
        if bundle_id not in state.bundles:
            memory.unknown.setdefault(bundle_id, Unknown())
    for bundle_id in (memory.unknown.keys() | memory.set_aside.keys()) - set(found.bundle_ids):
        _decided(memory, bundle_id)


def recognise_directory(
    memory: Memory, bundle_id: BundleId, seen: DirectorySeen | str, now_s: float, limits: Limits
) -> None:
    """One unknown directory was looked at. A text: why nothing can be made of it, ever."""
    unknown = memory.unknown.get(bundle_id)
    if unknown is None or unknown.found is not None:
        return
    found = seen if isinstance(seen, str) else parse_found(seen, limits)
    if isinstance(found, BundleAdopted):
        unknown.found = found
        return
    unknown.looks += 1
    memory.failed(("adopt", bundle_id), now_s, LOOK_AGAIN_S, LOOK_AGAIN_S, found)
    if unknown.looks >= LOOKS:
        memory.set_aside[bundle_id] = found
        memory.raise_alarm(f"foreign-bundle-{bundle_id}", f"{found[:250]}: left as it is", now_s)
    if bundle_id in memory.set_aside:
        # Looked at again with the next listing.
        del memory.unknown[bundle_id]


def recognise_no_directory(
    memory: Memory, bundle_id: BundleId, outcome: Failure, now_s: float, limits: Limits
) -> None:
    """An unknown directory could not be looked at: gone, not ours for ever, or only not now."""
    if isinstance(outcome, Refused) and outcome.code == GONE:
        _decided(memory, bundle_id)
    elif isinstance(outcome, Refused):
        recognise_directory(memory, bundle_id, outcome.reason, now_s, limits)


def note_unread(memory: Memory, bundle_id: BundleId, outcome: Failure, now_s: float) -> None:
    """Evidence of a bundle could not be read; `Refused`: its directory is not there."""
    memory.evidence_failed[bundle_id] = outcome.reason
    if isinstance(outcome, Refused):
        count, since_s = memory.gone.get(bundle_id, (0, now_s))
        memory.gone[bundle_id] = count + 1, since_s


# --- manifests --------------------------------------------------------------------------------------------------


def parse_found(seen: DirectorySeen, limits: Limits) -> BundleAdopted | str:
    """The bundle of a manifest (`script.render_manifest`) with all of its jobs; a text: why there is none."""
    if seen.manifest is None:
        return "manifest.json is not there or cannot be read"
    try:
        raw = json.loads(seen.manifest)
        if raw["schema"] != 1 or raw["bundle_id"] != seen.bundle_id:
            return f"manifest.json is of bundle {raw['bundle_id']!a:.40}, schema {raw['schema']!a:.20}"
        if raw["queue"] not in limits.queues:
            return f"queue {raw['queue']!a:.70} of its manifest is not in the config"
        queue = limits.queues[raw["queue"]]
        nodes = sorted(raw["nodes"], key=lambda node: int(node["index"]))
        if [node["index"] for node in nodes] != list(range(len(nodes))) or not nodes:
            return "manifest.json: nodes are not numbered from 0"
        jobs = [[_job(item, raw["panda_queue"], queue, limits) for item in node["jobs"]] for node in nodes]
        return BundleAdopted(
            "",
            seen.bundle_id,
            queue.name,
            tuple(tuple(item.job.panda_id for item in node) for node in jobs),
            int(raw["walltime_s"]),
            max(1, seen.rounds),
            tuple(item for node in jobs for item in node),
            raw.get("fencing") == "weak",
            queue.server,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, BadJobText) as error:
        return f"manifest.json cannot be understood: {error!r:.150}"


def _job(raw: Mapping[str, Any], panda_queue: str, queue: QueueSpec, limits: Limits) -> AdoptedJob:
    """The job as it was fetched, from what the agents are told of it."""
    words = [f"{name}={value}" for name, value in raw["environment"].items()]
    panda_id = PandaId(int(raw["panda_id"]))
    if not 0 < panda_id <= PANDA_ID_MAX:
        raise ValueError(f"PandaID {panda_id} is out of range")
    job = Job(
        panda_id,
        int(raw["attempt_nr"]),
        str(panda_queue),
        str(raw["job_name"]),
        str(raw["kind"]),
        shlex.join([*words, *(str(word) for word in raw["argv"])]),
        tuple(str(place["lfn"]) for place in raw["outputs"]),
        None if raw["log"] is None else str(raw["log"]["lfn"]),
    )
    parse_job_text(job.job_pars)
    work, task = work_of(job, queue.server), task_of(job, queue.name, limits)
    return AdoptedJob(job, int(raw["turn"]), work, task, server=queue.server)


# --- known bundles and jobs ---------------------------------------------------------------------------------------


def forgotten_round(memory: Memory, bundle: Bundle, number: int) -> bool | None:
    """Whether round `number` may have been submitted by a run that the journal does not tell of. None: not known yet.

    Its script was there before this run wrote one. What a crash before the Intent leaves looks the same; then the
    round is looked for in vain and becomes void.
    """
    if bundle.bundle_id not in memory.inherited:
        return False
    found = memory.scripts_found.get(bundle.bundle_id)
    return None if found is None else number in found


def is_whole(state: State, bundle: Bundle) -> bool:
    """Whether every job of the manifest is still this bundle's: else a further round would run what is elsewhere."""
    records = (state.jobs.get(key) for key in bundle.job_keys)
    return all(record is not None and record.bundle_id == bundle.bundle_id for record in records)


def ask_first(memory: Memory, bundle: Bundle) -> bool:
    """Ask the server about jobs of this bundle of which it has told nothing in this run. Whether there are any."""
    untold = [key for key in bundle.job_keys if key in memory.untold] if memory.untold else []
    memory.to_ask.update(dict.fromkeys((bundle.queue, panda_id_of(key)) for key in untold))
    return bool(untold)


def held_pool(state: State, memory: Memory, queue: str) -> str | None:
    """Why jobs of this pool may not be bundled or ended yet; asks for what is missing. None if they may."""
    reason = memory.undecided()
    if reason is not None or not memory.untold:
        return reason
    untold = [(queue, panda_id_of(key)) for key in state.pools.get(queue, {}) if key in memory.untold]
    memory.to_ask.update(dict.fromkeys(untold))
    return f"the server is being asked about {len(untold)} jobs of the pool" if untold else None


def recognise_told(
    state: State, memory: Memory, key: JobKey, queues: Sequence[str], item: ServerStatus, utc: str
) -> Iterator[Event]:
    """The word of the server of `queues` about a job of the replayed journal, or of a directory that was found."""
    for queue in queues:
        memory.to_ask.pop((queue, item.panda_id), None)
        if memory.unknown:
            memory.told[queue, item.panda_id] = item.status
    record = state.jobs.get(key)
    bundle = state.bundles.get(record.bundle_id) if record is not None and record.bundle_id else None
    idle = bundle is not None and (bundle.between_rounds or bundle.bundle_id in memory.gone)
    if record is None or key not in memory.untold:
        memory.untold.discard(key)
        return
    pooled = record.state is JobState.POOLED and memory.undecided() is None
    if pooled or (idle and record.state in (JobState.BUNDLED, JobState.STARTED)):
        memory.untold.discard(key)
        if item.status not in ALIVE:
            yield JobFoundOver(utc, item.panda_id, f"the server says {item.status[:40]}", record.server)
