"""From rows to what PanDA is sent: names, files and parameters of the next attempt of a step."""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

from prodsys_core import naming, tables
from prodsys_core.chunks import in_chunks
from prodsys_core.config import Config, Site
from prodsys_core.lifecycle import StepKind
from prodsys_core.models import MergeInput, Run, Step, Task
from prodsys_core.ports import PandaJob

_NAMED = attrgetter(*"pk production type year files_home_prefix path soft prodslt phastver template".split())
"""In the order of naming.TaskNames."""


class Input(NamedTuple):
    """A file that goes into a merged one."""

    lfn: str
    n_events: int | None


def run_site(config: Config, run: Run, task: Task) -> Site | None:
    """Where a run's files are. One of which nothing was ever sent (all left out) counts for its task's first site."""
    return config.site(run.site or task.site_names[0])


NO_SITE = "no-site"
"""Reason of work whose site is not in the configuration: it waits until the site is there again."""


def no_site(run_site: str, task_sites: str) -> str:
    """The same for people."""
    return f"site {run_site or task_sites} is not in the configuration"


def task_names(task: Task) -> naming.TaskNames:
    """The task's fields that go into names."""
    return naming.TaskNames(*_NAMED(task))


def chunk_names(step: Step) -> naming.ChunkNames:
    """The raw file of a reconstruct step."""
    job = step.job
    return naming.ChunkNames(step.run.number, job.chunk, job.file, job.path)


def piece_names(step: Step) -> naming.PieceNames:
    """The merged file of a step on a group."""
    return naming.PieceNames(step.group.product, step.run.number, step.group.piece)


def step_outputs(step: Step, attempt: int) -> dict[str, str]:
    """LFN by product of an attempt of a PanDA step."""
    names = task_names(step.task)
    if step.kind == StepKind.RECONSTRUCT:
        return naming.chunk_outputs(tables.products(), names, chunk_names(step), attempt)
    return naming.merged_outputs(tables.products(), names, piece_names(step), attempt)


def priority(kind: str, task_type: str) -> int:
    """PanDA priority: merging before processing before filtering."""
    priorities = tables.products().priorities
    if kind != StepKind.RECONSTRUCT:
        return priorities["merge"]
    return priorities.get(task_type, priorities["reconstruct"])


def panda_queue(site: Site, kind: str) -> str:
    """Merges go to the site's short queue."""
    return site.panda_queue if kind == StepKind.RECONSTRUCT else site.merge_queue


def prepare(config: Config, site: Site, step: Step, number: int, inputs: Sequence[Input]) -> PandaJob:
    """The step's next attempt, in batch `number`; a merge has `inputs`. Raises KeyError where the site has no command
    for it."""
    table, names, attempt = tables.products(), task_names(step.task), step.attempt + 1
    lfns, command = step_outputs(step, attempt), site.commands[step.kind]
    if step.kind == StepKind.RECONSTRUCT:
        chunk, n_events, transformation = chunk_names(step), step.job.n_events, step.task.type
        job_name = naming.chunk_job_name(names, chunk, step.pk, attempt)
        parameters = naming.render_chunk_parameters(names, chunk, lfns, command, step.work, n_events)
    else:
        piece, counts, path = (
            piece_names(step),
            [item.n_events for item in inputs],
            input_list_path(site, step),
        )
        product = piece.product
        n_events = sum(counts) if product == "mdst" and None not in counts else None
        transformation = table.products[product].transformation
        job_name = naming.merge_job_name(table, names, piece, step.pk, attempt)
        parameters = naming.render_merge_parameters(names, lfns, product, path, command, step.work, n_events)
    return PandaJob(
        job_name=job_name,
        batch_number=number,
        panda_queue=panda_queue(site, step.kind),
        transformation=transformation,
        job_parameters=parameters,
        outputs=naming.declared(lfns),
        attempt_nr=attempt,
        max_attempt=step.task.max_attempts,
        priority=priority(step.kind, step.task.type),
        task_id=step.task_id,
        n_events=n_events,
        parent_id=step.panda_id,
        prod_source_label=config.panda.prod_source_label,
        vo=config.panda.vo,
        max_walltime_s=site.max_walltime_s,
    )


def merge_inputs(steps: Iterable[Step]) -> dict[int, list[Input]]:
    """Inputs of merge steps by group, in chunk order."""
    inputs: dict[int, list[Input]] = {step.group_id: [] for step in steps}
    for ids in in_chunks(list(inputs)):
        rows = MergeInput.objects.filter(group__in=ids).order_by("pk")
        for group_id, *row in rows.values_list("group_id", "lfn", "n_events"):
            inputs[group_id].append(Input(*row))
    return inputs


def input_list(site: Site, step: Step, inputs: Iterable[Input]) -> tuple[str, str]:
    """Path and text of a merge step's list of inputs, one path a line; it must stand before the job is sent."""
    names, product = task_names(step.task), step.group.product
    paths = (naming.chunk_path(tables.products(), names, product, item.lfn) for item in inputs)
    return input_list_path(site, step), "".join(f"{path}\n" for path in paths)


def input_list_path(site: Site, step: Step) -> str:
    """Where the list of a merge step's inputs stands on the site."""
    folder = site.files.lists or f"{site.files.root}/prodsys-lists"
    return f"{folder}/{step.work}.txt"
