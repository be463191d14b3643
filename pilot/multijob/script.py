"""Texts of a bundle: its manifest and the batch script of a round (docs/architecture/files.md). Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from pilot.experiments.jobtext import BadJobText, parse_job_text
from pilot.experiments.words import (
    BadSetup,
    BadSteps,
    Kind,
    OutputPlace,
    StepCommand,
    place_outputs,
    run_of,
    setup_of,
    steps_of,
)
from pilot.multijob.adoption import is_whole
from pilot.multijob.credential import bundle_rule, copy_path
from pilot.multijob.fitness import unfit_jobs
from pilot.multijob.listing import round_name
from pilot.multijob.model import Bundle, JobRecord, Limits, State
from pilot.multijob.runtime import predict_s
from pilot.multijob.sicknodes import avoided
from pilot.ports import UNFIT, BatchRequest, BundleFiles, JobKey, Refused

SCHEMA = 1


def plan_files(state: State, bundle: Bundle, limits: Limits) -> Callable[[], BundleFiles | Refused]:
    """What makes manifest and script from what is known now, whenever and wherever it is called."""
    jobs = {key: copy(state.jobs[key]) for key in bundle.job_keys if key in state.jobs}
    known = State(jobs=jobs, nodes=dict(state.nodes))
    return partial(render_files, known, replace(bundle), limits)


def render_files(state: State, bundle: Bundle, limits: Limits) -> BundleFiles | Refused:
    """Manifest and script of round 1. `Refused`: there is none for jobs that it names; any other failure is raised."""
    if not is_whole(state, bundle):
        return Refused(UNFIT, unfit_jobs(state, bundle, limits) or "")
    try:
        manifest = render_manifest(state, bundle, limits)
    except (BadJobText, BadSetup, BadSteps, KeyError, ValueError):
        # Looked for only now: that takes a third of the time of a manifest.
        unfit = unfit_jobs(state, bundle, limits)
        if unfit is None:
            raise
        return Refused(UNFIT, unfit)
    return BundleFiles(bundle.bundle_id, manifest, {1: render_script(bundle, 1, limits)})


def bundle_dir(bundle: Bundle, limits: Limits) -> str:
    """Path of the bundle's directory, the same on every node."""
    return f"{limits.site.shared_dir}/bundles/{bundle.bundle_id}"


def render_script(bundle: Bundle, number: int, limits: Limits) -> str:
    """The batch script of round `number`: directives, then one exec of the gate."""
    queue, site = limits.queues[bundle.queue], limits.site
    directory = bundle_dir(bundle, limits)
    request = BatchRequest(
        name=round_name(bundle, number),
        queue=queue.batch_queue,
        nodes=len(bundle.nodes),
        slots_per_node=queue.cores or queue.slots,
        walltime_s=bundle.walltime_s,
        stdout=f"{directory}/batch.{number}.out",
        features=site.features,
        account=site.account,
        flags=None if bundle.refusal_before(number) is not None else site.flags,
    )
    gate = [site.python, "-I", "-S", site.agent_file, "gate", "--bundle", directory, "--round", str(number)]
    return f"#!/bin/sh\n{site.directives(request)}exec {shlex.join(gate)}\n"


def render_manifest(state: State, bundle: Bundle, limits: Limits) -> str:
    """What the agents need to know, as JSON text. Raises where a job of the bundle does not pass `unusable`."""
    queue, site = limits.queues[bundle.queue], limits.site
    jobs = {key: state.jobs[key].job for key in bundle.job_keys}
    texts = {key: parse_job_text(job.job_pars) for key, job in jobs.items()}
    keys = list(jobs)
    predicted = dict(zip(keys, predict_s([texts[i].n_events for i in keys], queue.walltime), strict=True))
    kinds = {job.transformation for job in jobs.values()}
    needs_caldb = any(limits.experiment.kinds[name].needs_caldb for name in kinds)
    caldb = queue.caldb or site.caldb
    manifest = {
        "schema": SCHEMA,
        "bundle_id": bundle.bundle_id,
        "site": site.name,
        "queue": queue.name,
        "panda_queue": queue.panda_queue,
        "python": site.python,
        "agent_file": site.agent_file,
        "walltime_s": bundle.walltime_s,
        "fencing": "weak" if bundle.weak else "link",
        "limits": dict(site.node_limits),
        "local_dir": site.local_dir,
        "slots": queue.slots,
        "bind": site.bind,
        "end_foreign": site.end_foreign,
        "avoided": {item.host: item.reason for item in avoided(state, bundle.planned_at, limits)},
        "probe": list(site.probe),
        "inputs": {
            "method": queue.inputs_method or site.inputs_method,
            "command": list(site.inputs_command),
        },
        "launch": [
            list(site.launch(index, queue.cores or queue.slots)) for index in range(len(bundle.nodes))
        ],
        "environment": {**site.environment, **_credential(bundle, limits)},
        "experiment": dict(limits.experiment.environment),
        "caldb": dict(caldb) if caldb is not None and needs_caldb else None,
        "kinds": {name: _kind(limits.experiment.kinds[name], limits) for name in sorted(kinds)},
        "nodes": [
            {"index": index, "jobs": [_job(state.jobs[i], predicted[i], limits) for i in node]}
            for index, node in enumerate(bundle.nodes)
        ],
    }
    return json.dumps(manifest, indent=1, sort_keys=True) + "\n"


def _credential(bundle: Bundle, limits: Limits) -> dict[str, str]:
    """The variable that tells payloads where their copy of the credential is."""
    found = bundle_rule(bundle, limits)
    return {found[1].variable: copy_path(bundle_dir(bundle, limits))} if found and found[1].variable else {}


def _kind(kind: Kind, limits: Limits) -> dict[str, Any]:
    patterns = [limits.experiment.patterns[name] for name in kind.patterns]
    return {
        "needs_caldb": kind.needs_caldb,
        "end_marker": _marker(kind.marker_where, kind.marker_text),
        "patterns": [{"name": item.name, "where": item.where, "text": item.text} for item in patterns],
        "events_read": kind.events_read,
        "events_written": kind.events_written,
    }


def _job(record: JobRecord, predicted_s: float, limits: Limits) -> dict[str, Any]:
    job = record.job
    text = parse_job_text(job.job_pars)
    kind = limits.experiment.kinds[job.transformation]
    lfns = (*job.outputs, *((job.log_lfn,) if job.log_lfn else ()))
    placed = place_outputs(limits.experiment, limits.site.output_root, text.environment, lfns)
    if isinstance(placed, str):
        raise ValueError(placed)
    places = {place.lfn: _place(place) for place in placed}
    return {
        "panda_id": job.panda_id,
        "attempt_nr": job.attempt_nr,
        "job_name": job.job_name,
        "turn": record.turns,
        "kind": job.transformation,
        "run": run_of(limits.experiment, text.environment),
        "predicted_s": round(predicted_s, 3),
        "argv": list(text.argv),
        "steps": [_step(step) for step in steps_of(kind, text.argv, text.environment)],
        "environment": dict(text.environment),
        "setup": setup_of(limits.experiment, limits.site.setup, job.transformation, text.environment),
        "inputs": [
            {"path": path, "size": known.size, "adler32": known.adler32}
            for path, known in zip(text.inputs, text.sums, strict=True)
        ],
        "outputs": [places[lfn] for lfn in job.outputs],
        "log": places[job.log_lfn] if job.log_lfn else None,
    }


def _step(step: StepCommand) -> dict[str, Any]:
    return {
        "name": step.name,
        "argv": list(step.argv),
        "end_marker": _marker(step.marker_where, step.marker_text),
        "after_failure": step.after_failure,
    }


def _marker(where: str | None, text: str | None) -> dict[str, str | None] | None:
    return None if text is None else {"where": where, "text": text}


def _place(place: OutputPlace) -> dict[str, str]:
    return {"lfn": place.lfn, "target": place.target}


def events_of(state: State, key: JobKey) -> int | None:
    """Expected events of a job in the pool (None: unknown)."""
    return _events_of_text(state.jobs[key].job.job_pars)


# Pools are asked in every tick, and a text is split in 0.1 ms.
@lru_cache(maxsize=8192)
def _events_of_text(job_pars: str) -> int | None:
    return parse_job_text(job_pars).n_events
