"""`pilot why`: what an open job, bundle, batch job or queue waits for now. Pure; every wait has its reason."""

from __future__ import annotations

from pilot.multijob.decide import held_submit
from pilot.multijob.inputs import held_by_inputs
from pilot.multijob.knownjobs import find_key, key_of
from pilot.multijob.memory import Memory
from pilot.multijob.model import (
    Bundle,
    BundleState,
    JobRecord,
    JobState,
    Limits,
    QueueSpec,
    RoundState,
    State,
)
from pilot.multijob.recognise import Now
from pilot.ports import PANDA_ID_MAX, BundleId, PandaId
from pilot.rotation.policy import held_fetch, held_plan
from pilot.rotation.tasks import standing, task_id
from pilot.rotation.turns import held_in_common


def why(state: State, memory: Memory, subject: str, now: Now, limits: Limits) -> list[str]:
    """Lines about one PanDA id (of every server that has it, or of the one in `SERVER/ID`), bundle id, batch id (or
    round name `<tag>.<k>`), queue, task; empty: unknown."""
    if subject in limits.queues:
        return _queue(state, memory, subject, now, limits)
    jobs = _jobs(state, subject, limits)
    if jobs:
        return [line for record in jobs for line in _job(state, memory, record, now, limits)]
    for task, known in state.tasks.items():
        if subject == task_id(task):
            ends = f"{sum(known.recent)} of its last {len(known.recent)} jobs failed"
            waits = standing(state, task, now.utc, limits)[1] or "nothing"
            return [f"task {subject} ({task[:200]!a}) waits for: {waits}; {ends}"]
    bundle = state.bundles.get(BundleId(subject.partition(".")[0])) or _of_batch_id(state, subject)
    return _bundle(memory, bundle, now, limits) if bundle is not None else []


def _jobs(state: State, subject: str, limits: Limits) -> list[JobRecord]:
    """The open jobs with this PanDA id, of one server or of all."""
    server, _, number = subject.rpartition("/")
    if not (number.isascii() and number.isdigit()) or int(number) > PANDA_ID_MAX:
        return []
    panda_id = PandaId(int(number))
    if server:
        keys = [find_key(state, server, panda_id, limits)]
    else:
        keys = [key_of(state, name, panda_id) for name in state.servers]
    return [state.jobs[key] for key in keys if key in state.jobs]


def _of_batch_id(state: State, subject: str) -> Bundle | None:
    for bundle in state.bundles.values():
        for found in bundle.rounds.values():
            if any(subject in (batch_id, batch_id.partition(".")[0]) for batch_id in found.batch_ids):
                return bundle
    return None


def _queue(state: State, memory: Memory, name: str, now: Now, limits: Limits) -> list[str]:
    queue = limits.queues[name]
    fetch = held_fetch(state, memory, queue, now, limits)
    if fetch is None:
        fetch = _delayed(memory, ("fetch", name), now) or "nothing: it fetches while its pool is not full"
    plan = _held(state, memory, queue, now, limits) or "nothing: the next tick makes one"
    return [f"queue {name}: the fetch waits for: {fetch}", f"queue {name}: the next bundle waits for: {plan}"]


def _held(state: State, memory: Memory, queue: QueueSpec, now: Now, limits: Limits) -> str | None:
    """What keeps this queue from its next bundle: its own reason, or one that all queues share."""
    return held_plan(state, memory, queue, now, limits) or held_in_common(state, memory, now, limits)


def _job(state: State, memory: Memory, record: JobRecord, now: Now, limits: Limits) -> list[str]:
    name = f"job {record.panda_id}"
    if record.server and len(state.servers) > 1:
        name += f" of {record.server}"
    head = f"{name}: {record.state.value}"
    known = memory.reported.get(record.key)
    match record.state:
        case JobState.POOLED:
            queue = limits.queues.get(record.queue)
            if queue is None:
                lines = [f"{head}: its queue {record.queue} is not in the config"]
            else:
                place = list(state.pools[record.queue]).index(record.key) + 1
                reason = standing(state, record.task, now.utc, limits)[1]
                reason = reason or held_by_inputs(memory, record.key)
                reason = reason or _held(state, memory, queue, now, limits) or "the next tick makes a bundle"
                lines = [
                    f"{head}, number {place} in the pool of {record.queue}, waits for a bundle: {reason}"
                ]
        case JobState.BUNDLED | JobState.STARTED:
            bundle = state.bundles[record.bundle_id] if record.bundle_id in state.bundles else None
            lines = [f"{head} in bundle {record.bundle_id}, node {record.node_index}"]
            lines += _bundle(memory, bundle, now, limits) if bundle is not None else []
        case JobState.JUDGED:
            verdict = record.verdict
            text = f"{verdict.status.value} {verdict.code} ({verdict.reason})" if verdict is not None else ""
            lines = [f"{head}: {text}; waits until the server accepts its final report"]
    if record.orphaned:
        lines.append(f"{name}: given up by the server; nothing is reported for it while it runs")
    if record.kill_ordered:
        lines.append(f"{name}: a person ordered its end")
    if record.key in memory.kills_held:
        lines.append(
            f"{name}: its end was ordered together with many others: held until `pilot confirm-kill` (alarm "
            "mass-kill)"
        )
    if known is not None and known.failures:
        lines.append(
            f"{name}: {known.failures} reports were not accepted, the next in "
            f"{max(0.0, known.retry_s - now.mono_s):.0f} s"
        )
    return lines


def _bundle(memory: Memory, bundle: Bundle, now: Now, limits: Limits) -> list[str]:
    current = bundle.current
    name = f"bundle {bundle.bundle_id}" + (f".{current.number}" if current is not None else "")
    lines = [f"{name}: {_bundle_waits_for(memory, bundle, now, limits)}"]
    if bundle.cancel_reason is not None:
        lines.append(f"{name}: is being cancelled: {bundle.cancel_reason}")
    failed = memory.evidence_failed.get(bundle.bundle_id)
    if failed:
        lines.append(f"{name}: its files could not be read last time: {failed}")
    for key, delay in memory.delays.items():
        if bundle.bundle_id in key and now.mono_s < delay.until_s:
            lines.append(f"{name}: {key[0]} again in {delay.until_s - now.mono_s:.0f} s: {delay.reason}")
    return lines


def _bundle_waits_for(memory: Memory, bundle: Bundle, now: Now, limits: Limits) -> str:
    """One line: the fact that takes this bundle on."""
    current = bundle.current
    ids = ", ".join(current.owners) if current is not None else ""
    match bundle.state:
        case BundleState.PLANNED:
            known = bundle.queue in limits.queues
            return (
                "its directory is being made" if known else f"its queue {bundle.queue} is not in the config"
            )
        case BundleState.CLOSED:
            since_s = max(memory.closed_s.get(bundle.bundle_id, now.mono_s), memory.held_up_s)
            left_s = since_s + limits.protocol.settle_s - now.mono_s
            return f"closed; the last reading of its files is in {max(0.0, left_s):.0f} s"
        case BundleState.SETTLED:
            settled = f"settled at {bundle.settled_at}" + (", packed" * (bundle.bundle_id in memory.packed))
            return f"{settled}; kept until its retention is over and its reports are accepted"
        case BundleState.OPEN if current is None or current.state is RoundState.VOID:
            if bundle.queue not in limits.queues:
                return f"its queue {bundle.queue} is not in the config"
            return held_submit(memory, bundle, now, limits) or "its next round is about to be submitted"
        case _:
            return _round_waits_for(memory, bundle, now, limits, ids)


def _round_waits_for(memory: Memory, bundle: Bundle, now: Now, limits: Limits, ids: str) -> str:
    current = bundle.current
    assert current is not None
    if current.state is RoundState.CLAIMED:
        over = current.batch_job_over
        return "its batch job is over; it is being closed" if over else f"batch job {ids} runs; its end"
    if current.pilot_owns:
        return "given up; the door is being set for the next round"
    if current.refused is not None:
        return f"qsub refused this round: {current.refused}; it is being given up"
    if ("submit", bundle.bundle_id, current.number) in memory.in_flight:
        return "qsub's answer"
    seen = [job for batch_id in current.owners if (job := memory.seen_live.get(batch_id)) is not None]
    if seen:
        return f"batch job {ids} is {seen[-1].state.value} in the batch system; its start"
    since_s = memory.round_since_s.get((bundle.bundle_id, current.number), now.mono_s)
    left_s = max(0.0, since_s + limits.protocol.grace_s - now.mono_s)
    what = f"batch job {ids}" if ids else "a batch job of its name"
    return (
        f"{what} is in no listing yet; given up {left_s:.0f} s from now if two complete ones do not show it"
    )


def _delayed(memory: Memory, key: tuple[str, str], now: Now) -> str | None:
    delay = memory.delays.get(key)
    if delay is None or now.mono_s >= delay.until_s:
        return None
    return f"{delay.reason}, asked again in {delay.until_s - now.mono_s:.0f} s"
