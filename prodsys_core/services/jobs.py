"""From rows to what PanDA is sent: names, files and parameters of the next attempt of a step."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from prodsys_core import tables
from prodsys_core.config import Config, Site
from prodsys_core.lifecycle import StepKind
from prodsys_core.models import MergeInput, Run, Step, Task
from prodsys_core.naming import (
    ChunkNames,
    PieceNames,
    TaskNames,
    chunk_job_name,
    chunk_outputs,
    chunk_path,
    declared,
    merge_job_name,
    merged_outputs,
    render_chunk_parameters,
    render_merge_parameters,
)
from prodsys_core.ports import PandaJob

_NAMED = attrgetter(*"pk production type year files_home_prefix path soft prodslt phastver template".split())
"""In the order of TaskNames."""


@dataclass(frozen=True, slots=True)
class InputList:
    """A text that must stand on the site before the job is sent."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """An attempt ready to be committed and sent."""

    step_id: int
    job: PandaJob


def run_site(config: Config, run: Run, task: Task) -> Site | None:
    """Where a run's files are. One of which nothing was ever sent (all left out) counts for its task's first site."""
    return config.site(run.site or task.site_names[0])


def task_names(task: Task) -> TaskNames:
    """The task's fields that go into names."""
    return TaskNames(*_NAMED(task))


def chunk_names(step: Step) -> ChunkNames:
    """The raw file of a reconstruct step."""
    job = step.job
    return ChunkNames(step.run.number, job.chunk, job.file, job.path)


def piece_names(step: Step) -> PieceNames:
    """The merged file of a step on a group."""
    return PieceNames(step.group.product, step.run.number, step.group.piece)


def step_outputs(step: Step, attempt: int) -> dict[str, str]:
    """LFN by product of an attempt of a PanDA step."""
    names = task_names(step.task)
    if step.kind == StepKind.RECONSTRUCT:
        return chunk_outputs(tables.products(), names, chunk_names(step), attempt)
    return merged_outputs(tables.products(), names, piece_names(step), attempt)


def priority(step: Step) -> int:
    """PanDA priority: merging before processing before filtering."""
    priorities = tables.products().priorities
    if step.kind != StepKind.RECONSTRUCT:
        return priorities["merge"]
    return priorities.get(step.task.type, priorities["reconstruct"])


def panda_queue(site: Site, kind: str) -> str:
    """Merges go to the site's short queue."""
    return site.panda_queue if kind == StepKind.RECONSTRUCT else site.merge_queue


def prepare(config: Config, site: Site, step: Step, batch_number: int, attempt: int) -> Prepared:
    """What attempt number `attempt` of this step sends; raises KeyError where the site has no command for it."""
    prepared = _prepare_chunk if step.kind == StepKind.RECONSTRUCT else _prepare_merge
    job = prepared(site, step, attempt)
    panda = config.panda
    return Prepared(
        step.pk,
        PandaJob(
            **job,
            batch_number=batch_number,
            panda_queue=panda_queue(site, step.kind),
            attempt_nr=attempt,
            max_attempt=step.task.max_attempts,
            priority=priority(step),
            task_id=step.task_id,
            parent_id=step.panda_id,
            prod_source_label=panda.prod_source_label,
            vo=panda.vo,
            max_walltime_s=site.max_walltime_s,
        ),
    )


def _prepare_chunk(site: Site, step: Step, attempt: int) -> dict[str, Any]:
    names, chunk = task_names(step.task), chunk_names(step)
    lfns = step_outputs(step, attempt)
    parameters = render_chunk_parameters(
        names, chunk, lfns, site.commands[step.kind], step.work, step.job.n_events
    )
    return {
        "job_name": chunk_job_name(names, chunk, step.pk, attempt),
        "transformation": step.task.type,
        "job_parameters": parameters,
        "outputs": declared(lfns),
        "n_events": step.job.n_events,
    }


def _prepare_merge(site: Site, step: Step, attempt: int) -> dict[str, Any]:
    table, names, piece = tables.products(), task_names(step.task), piece_names(step)
    n_events = _sum_events(step) if piece.product == "mdst" else None
    lfns = step_outputs(step, attempt)
    parameters = render_merge_parameters(
        names, lfns, piece.product, input_list_path(site, step), site.commands[step.kind], step.work, n_events
    )
    return {
        "job_name": merge_job_name(table, names, piece, step.pk, attempt),
        "transformation": table.products[piece.product].transformation,
        "job_parameters": parameters,
        "outputs": declared(lfns),
        "n_events": n_events,
    }


def _sum_events(step: Step) -> int | None:
    counts = list(MergeInput.objects.filter(group=step.group).values_list("n_events", flat=True))
    return None if None in counts else sum(counts)


def input_list(site: Site, step: Step) -> InputList:
    """Paths of a merge step's inputs, one a line, in chunk order."""
    names, product = task_names(step.task), step.group.product
    lfns = MergeInput.objects.filter(group=step.group).order_by("pk").values_list("lfn", flat=True)
    paths = [chunk_path(tables.products(), names, product, lfn) for lfn in lfns]
    return InputList(input_list_path(site, step), "".join(f"{path}\n" for path in paths))


def input_list_path(site: Site, step: Step) -> str:
    """Where the list of a merge step's inputs stands on the site."""
    folder = site.files.lists or f"{site.files.root}/prodsys-lists"
    return f"{folder}/{step.work}.txt"
