"""What the files of a bundle tell: claims, and the facts in its node journals. The node records, the edge judges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pilot.experiments.jobtext import BadJobText, parse_job_text
from pilot.multijob.actions import ReadEvidence
from pilot.multijob.events import (
    BundleSettled,
    ClaimSeen,
    Event,
    JobGivenBack,
    JobJudged,
    JobReturned,
    JobStarted,
    JournalConsumed,
    NodeJournalDamaged,
    RoundWon,
)
from pilot.multijob.jobkeys import make_key
from pilot.multijob.memory import Memory
from pilot.multijob.model import Bundle, BundleState, JobRecord, JobState, Limits, State
from pilot.multijob.sicknodes import failure_of
from pilot.multijob.verdict import failed, judge, judged
from pilot.ports import Claim, EvidenceSeen, Job, JournalLine, PandaId


def recognise_evidence(
    state: State,
    memory: Memory,
    action: ReadEvidence,
    seen: EvidenceSeen,
    utc: str,
    now_s: float,
    limits: Limits,
) -> Iterator[Event]:
    """Events of one reading. After the last one (settled) every job gets its verdict or goes back."""
    bundle = state.bundles.get(action.bundle_id)
    if bundle is None or (bundle.state is BundleState.SETTLED and not bundle.recalled):
        return
    memory.evidence_failed.pop(action.bundle_id, None)
    memory.scripts_found.setdefault(action.bundle_id, frozenset(seen.scripts))
    if memory.gone.pop(action.bundle_id, None) is not None:
        memory.clear_alarm(f"directory-gone-{action.bundle_id}")
    if seen.damaged:
        reasons = "; ".join(f"{item.file}: {item.reason} at byte {item.at}" for item in seen.damaged)
        memory.raise_alarm(f"damaged-evidence-{bundle.bundle_id}", reasons[:300], now_s)
    if bundle.state is BundleState.OPEN:
        yield from _claims(bundle, memory, seen, utc, now_s)
    if not action.last and _is_behind(bundle, seen):
        return
    ends: dict[str, int] = {}
    for line in seen.lines:
        yield from _line(state, memory, bundle, line, utc, now_s, limits)
        _hear(memory, bundle, line, now_s)
        ends[line.file] = max(line.end, ends.get(line.file, 0))
    if action.last:
        yield from _unreadable(bundle, seen)
    else:
        # What cannot be read now may be read later: it is not passed by, and what follows is read again.
        for damage in seen.damaged:
            ends[damage.file] = min(damage.at, ends.get(damage.file, damage.at))
    for file, end in sorted(ends.items()):
        if end > bundle.offsets.get(file, 0):
            yield JournalConsumed(bundle.bundle_id, file, end)
    if action.last and bundle.state is BundleState.SETTLED:
        yield from _recalled(state, bundle, utc, limits)
    elif action.last:
        current = bundle.current
        said = current is not None and current.number in seen.over_walltime
        yield from settle(state, bundle, utc, limits, over_walltime=said)


def _is_behind(bundle: Bundle, seen: EvidenceSeen) -> bool:
    """A later round than the newest known one has its script: what its agents wrote is of a batch job not known yet."""
    current = bundle.current
    return current is not None and any(number > current.number for number in seen.scripts)


def _hear(memory: Memory, bundle: Bundle, line: JournalLine, now_s: float) -> None:
    """Remember that a node said something new; a line that is read again is nothing new."""
    index = int(line.file.split(".")[1])
    heard = memory.heard.setdefault(bundle.bundle_id, {})
    file, end, _ = heard.get(index, ("", 0, 0.0))
    if file != line.file or line.end > end:
        heard[index] = (line.file, line.end, now_s)


def _unreadable(bundle: Bundle, seen: EvidenceSeen) -> Iterator[Event]:
    """The last reading: nodes whose journal has a part that is no line."""
    for damage in (*seen.damaged, *seen.tails):
        # What a pack held, that of every node may be missing.
        node = damage.file.startswith("node.")
        for index in (int(damage.file.split(".")[1]),) if node else range(len(bundle.nodes)):
            if index not in bundle.unreadable:
                reason = f"{damage.file}: {damage.reason} at byte {damage.at}"
                yield NodeJournalDamaged(bundle.bundle_id, index, reason)


def _claims(bundle: Bundle, memory: Memory, seen: EvidenceSeen, utc: str, now_s: float) -> Iterator[Event]:
    for number, claim in sorted(seen.claims.items()):
        found = bundle.rounds.get(number)
        if found is None and number in seen.scripts:
            # A round that the journal has forgotten: it comes up when those before it are void (`forgotten_round`).
            continue
        if found is None:
            memory.raise_alarm(f"foreign-claim-{bundle.bundle_id}", f"claim of unknown round {number}", now_s)
        elif bundle.weak and (claim.who == "pilot" or found.pilot_owns):
            # The pilot's mark says nothing yet: this run waits and looks. Marks after that are of starts that lose.
            memory.marked.add((bundle.bundle_id, number))
        elif claim.who == "pilot":
            if not found.pilot_owns:
                yield RoundWon(utc, bundle.bundle_id, number)
        elif tells_more(found.claim, claim, bundle.weak):
            memory.claim_was_read((bundle.bundle_id, number), claim, now_s)
            yield ClaimSeen(utc, bundle.bundle_id, number, claim)


def tells_more(known: Claim | None, claim: Claim, weak: bool) -> bool:
    """Whether a claim that was read says more than the one that is known; with `weak` fencing marks come one by one."""
    if known is None or known.who == "unreadable":
        return known is None or claim.who != "unreadable"
    return weak and not set(claim.named) <= set(known.named)


def _line(
    state: State, memory: Memory, bundle: Bundle, line: JournalLine, utc: str, now_s: float, limits: Limits
) -> Iterator[Event]:
    try:
        match line.kind:
            case "job_started":
                record = _record(state, bundle, line.body["panda_id"], line.body["attempt_nr"])
                if record is not None and record.state is JobState.BUNDLED:
                    node = record.node_index or 0
                    yield JobStarted(
                        utc, record.panda_id, record.attempt_nr, bundle.bundle_id, node, record.server
                    )
            case "job_ended":
                record = _record(state, bundle, line.body["panda_id"], line.body["attempt_nr"])
                if record is not None and record.state in (JobState.BUNDLED, JobState.STARTED):
                    yield _judged(record, line.body, utc, limits)
            case "given_back":
                for panda_id, attempt_nr in line.body["jobs"]:
                    record = _record(state, bundle, panda_id, attempt_nr)
                    again = record is not None and record.key in bundle.given_back
                    if record is not None and record.state is JobState.BUNDLED and not again:
                        reason = str(line.body.get("reason"))[:200]
                        yield JobGivenBack(bundle.bundle_id, record.panda_id, reason, record.server)
            case "agent_ended":
                failure = failure_of(bundle, line.file, line.body, state, utc)
                if failure is not None:
                    yield failure
            case "caldb_failed":
                reason = f"{line.file}: {str(line.body.get('reason'))[:200]}"
                memory.raise_alarm(f"caldb-{bundle.bundle_id}", reason, now_s)
            case "setup_failed":
                said = f"{line.body.get('script')}: {line.body.get('reason')}"
                memory.raise_alarm(f"setup-{bundle.bundle_id}", f"{line.file}: {said[:300]}", now_s)
            case _:
                pass
    except (KeyError, TypeError, ValueError) as error:
        memory.raise_alarm(f"damaged-evidence-{bundle.bundle_id}", f"{line.file}: {error!r}", now_s)


def _record(state: State, bundle: Bundle, panda_id: Any, attempt_nr: Any) -> JobRecord | None:
    """The record if the line speaks of this attempt in this bundle; other lines are late ones and are ignored."""
    for number in bundle.servers:
        record = state.jobs.get(make_key(number, PandaId(int(panda_id))))
        here = record is not None and record.bundle_id == bundle.bundle_id
        if record is not None and here and record.attempt_nr == attempt_nr:
            return record
    return None


def _judged(record: JobRecord, facts: Mapping[str, Any], utc: str, limits: Limits) -> JobJudged:
    job = record.job
    verdict, outcome = judge(job, expected_events(job), facts, limits.experiment)
    return judged(record, verdict, utc, outcome)


def expected_events(job: Job) -> int | None:
    """Events that the job parameters announce, None if unknown."""
    try:
        return parse_job_text(job.job_pars).n_events
    except BadJobText:
        return None


def _recalled(state: State, bundle: Bundle, utc: str, limits: Limits) -> Iterator[Event]:
    """Evidence of a settled bundle was read again for jobs handed out again: what it does not tell is lost."""
    for key in sorted(bundle.recalled):
        verdict = failed(limits.experiment.codes["lost"], f"handed out again; in bundle {bundle.bundle_id}")
        yield judged(state.jobs[key], verdict, utc)


def settle(
    state: State, bundle: Bundle, utc: str, limits: Limits, *, over_walltime: bool = False
) -> Iterator[Event]:
    """The last reading is done: a start line without an end is lost (or ended by the walltime, where the batch system
    said so, by its listing or in the job's output), no start line means not started.

    Where a node's journal has a part that cannot be read, no start line means nothing: lost, uncharged.
    """
    for key in bundle.job_keys:
        record = state.jobs.get(key)
        if record is None or record.bundle_id != bundle.bundle_id:
            continue
        if record.state is JobState.STARTED:
            code = "time-limit" if over_walltime or _was_over_walltime(bundle) else "lost"
            verdict = failed(limits.experiment.codes[code], f"bundle {bundle.bundle_id}")
            yield judged(record, verdict, utc)
        elif record.state is JobState.BUNDLED:
            if record.orphaned or key in bundle.recalled:
                # Its PandaID is no use any more, or it was handed out a second time: it never goes back.
                verdict = failed(limits.experiment.codes["lost"], "not started")
                yield judged(record, verdict, utc)
            elif record.kill_ordered:
                verdict = failed(limits.experiment.codes["killed"], "before it started")
                yield judged(record, verdict, utc)
            elif record.node_index in bundle.unreadable and key not in bundle.given_back:
                # It may have run: not started must be certain.
                verdict = failed(limits.experiment.codes["lost"], bundle.unreadable[record.node_index])
                yield judged(record, verdict, utc)
            else:
                reason = bundle.given_back.get(key, "not started")
                yield JobReturned(utc, record.panda_id, reason, record.server)
    yield BundleSettled(utc, bundle.bundle_id)


def settle_gone(state: State, bundle: Bundle, utc: str, limits: Limits) -> Iterator[Event]:
    """The bundle's directory is not there any more: nobody can tell what became of its jobs."""
    for key in bundle.job_keys:
        record = state.jobs.get(key)
        here = record is not None and record.bundle_id == bundle.bundle_id
        if record is not None and here and record.state in (JobState.BUNDLED, JobState.STARTED):
            verdict = failed(limits.experiment.codes["lost"], f"no directory of bundle {bundle.bundle_id}")
            yield judged(record, verdict, utc)
    if bundle.state is not BundleState.SETTLED:
        yield BundleSettled(utc, bundle.bundle_id)


def _was_over_walltime(bundle: Bundle) -> bool:
    return bundle.current is not None and bundle.current.over_walltime
