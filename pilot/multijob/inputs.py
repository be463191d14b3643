"""Inputs are looked at from the edge before a job enters a bundle: there, readable, not empty, not growing. Pure.

The look itself is made by a lane; what it brings is a value in a later tick. A job whose inputs are bad ends with a
code of its own (1103, uncharged) and takes no slot. What cannot be looked at is unknown: the job waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pilot.experiments.jobtext import BadJobText, parse_job_text
from pilot.multijob.actions import LookAtInputs
from pilot.multijob.events import Event
from pilot.multijob.fitness import judged_misfit, misfit
from pilot.multijob.jobkeys import panda_id_of
from pilot.multijob.memory import InputLook, Memory
from pilot.multijob.model import JobState, Limits, State
from pilot.multijob.verdict import failed, judged
from pilot.ports import InputSeen, InputsSeen, JobKey

# One look of the lane: enough for a bundle in a few looks, little enough to answer within seconds.
JOBS_AT_ONCE, PATHS_AT_ONCE = 128, 1024
# Texts of new jobs that one tick splits, 0.1 ms each.
READ_AT_ONCE = 256


def inputs_of(job_pars: str) -> tuple[str, ...]:
    """Paths that the job parameters name as inputs."""
    try:
        return parse_job_text(job_pars).inputs
    except BadJobText:
        return ()


def held_by_inputs(memory: Memory, key: JobKey) -> str | None:
    """Why the inputs of a job in the pool keep it from a bundle, None if they do not."""
    look = memory.inputs.get(key)
    if key in memory.misfits:
        return "the configuration does not fit them (alarm configuration-does-not-fit)"
    if look is None:
        return "their inputs have not been looked at yet"
    if look.good:
        return None
    if look.unknown:
        return "their inputs cannot be looked at"
    return (
        "an input is missing, it is looked for again"
        if look.trouble
        else "it is seen whether an input still grows"
    )


def decide_looks(
    state: State, memory: Memory, queue: str, utc: str, now_s: float, limits: Limits
) -> Iterator[Event | LookAtInputs]:
    """Look at the inputs of jobs in the pool of this queue, the oldest first.

    A job that is new to this run is first judged by the configuration of now; one that does not fit it ends.
    """
    _release_misfits(memory, limits)
    busy = memory.waiting(("inputs", queue), now_s)
    paths: dict[JobKey, tuple[str, ...]] = {}
    unfit: dict[JobKey, str] = {}
    count = read = 0
    for key in state.pools.get(queue, {}):
        look = memory.inputs.get(key)
        if look is None and read < READ_AT_ONCE and key not in memory.misfits:
            read += 1
            reason = _does_not_fit(state, memory, key, limits)
            if reason is not None:
                # Not while it may be at work in a directory that is not read, or the server has had its end.
                if memory.undecided() is None and key not in memory.untold:
                    unfit[key] = reason
                continue
            names = inputs_of(state.jobs[key].job.job_pars) if limits.input_look else ()
            look = memory.inputs[key] = (
                InputLook(names, now_s, good=True) if not names else InputLook(names, now_s)
            )
        if look is None or look.good or busy or now_s < look.at_s + again_s(limits):
            continue
        if paths and (len(paths) >= JOBS_AT_ONCE or count + len(look.paths) > PATHS_AT_ONCE):
            busy = True
            continue
        paths[key] = look.paths
        count += len(look.paths)
    if unfit and not _hold_misfits(memory, unfit, now_s, limits):
        yield from (judged_misfit(state.jobs[key], reason, utc, limits) for key, reason in unfit.items())
    if paths:
        yield LookAtInputs(queue, paths)


def _does_not_fit(state: State, memory: Memory, key: JobKey, limits: Limits) -> str | None:
    """Why a job of the pool cannot run by this configuration, None if it can. One just fetched has been asked."""
    return None if key in memory.fetched else misfit(state.jobs[key], limits)


def forget_inputs(memory: Memory, key: JobKey) -> None:
    """A job has left its pool. The alarm goes with the last of those that are held."""
    memory.inputs.pop(key, None)
    if key in memory.misfits:
        memory.misfits.discard(key)
        if not memory.misfits:
            memory.clear_alarm("configuration-does-not-fit")


def _hold_misfits(memory: Memory, unfit: Mapping[JobKey, str], now_s: float, limits: Limits) -> bool:
    """Whether these wait for a person: so many do not fit that it is rather the configuration that is wrong."""
    held = memory.misfits and limits.misfits_max <= memory.misfits_limit
    if not held and memory.misfits_ended + len(memory.misfits) + len(unfit) <= limits.misfits_max:
        memory.misfits_ended += len(unfit)
        return False
    if not memory.misfits:
        memory.misfits_limit = limits.misfits_max
    memory.misfits |= unfit.keys()
    key, reason = next(iter(unfit.items()))
    text = f"{len(memory.misfits)} jobs of the pools or more are held, one of them job {panda_id_of(key)}: {reason}"
    memory.raise_alarm("configuration-does-not-fit", text, now_s)
    return True


def _release_misfits(memory: Memory, limits: Limits) -> None:
    """A limit that was raised (`pilot reload`) is a person's word that they may end: all are judged again.

    That some of them leave their pools is no such word: under the old limit those that are left stay held.
    """
    if not memory.misfits or limits.misfits_max <= memory.misfits_limit:
        return
    if memory.misfits_ended + len(memory.misfits) <= limits.misfits_max:
        memory.misfits.clear()
        memory.clear_alarm("configuration-does-not-fit")


def again_s(limits: Limits) -> float:
    """Between two looks at the inputs of one job."""
    return max(limits.input_quiet_s, 1.0)


def recognise_inputs(
    state: State, memory: Memory, seen: InputsSeen, asked_s: float, utc: str, limits: Limits
) -> Iterator[Event]:
    """Events of one look. `asked_s`: when it was asked for."""
    for key, found in seen.jobs.items():
        record = state.jobs.get(key)
        if record is None or record.state is not JobState.POOLED:
            forget_inputs(memory, key)
            continue
        look = memory.inputs.get(key)
        if look is None:
            continue
        reason = _note(look, found, asked_s, limits)
        if reason is not None:
            verdict = failed(limits.experiment.codes["input-missing"], reason)
            yield judged(record, verdict, utc)


def _note(look: InputLook, found: InputSeen, asked_s: float, limits: Limits) -> str | None:
    """Remember what was seen; why the job must end now, None if it need not."""
    look.at_s, look.unknown = asked_s, found.unknown
    if found.unknown:
        return None
    if found.trouble:
        if not look.trouble:
            look.trouble_s = asked_s
        look.trouble, look.sizes = found.trouble, ()
        # A file that another host has just written is seen after visible_s at the latest.
        waited_s = asked_s - look.trouble_s
        return f"{found.trouble} (for {waited_s:.0f} s)" if waited_s >= limits.protocol.visible_s else None
    look.trouble = ""
    if found.sizes != look.sizes:
        look.sizes, look.steady_s = found.sizes, asked_s
    look.good = asked_s - look.steady_s >= limits.input_quiet_s
    waited_s = asked_s - look.first_s
    if not look.good and waited_s >= limits.input_wait_s:
        return f"an input still grows after {waited_s:.0f} s"
    return None
