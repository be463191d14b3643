"""From rows to what PanDA is sent: names, files and parameters of the next attempt of a step."""

from collections.abc import Iterable, Sequence
from operator import attrgetter

from prodsys_core import tables
from prodsys_core.chunks import in_chunks
from prodsys_core.config import Config, Site
from prodsys_core.lifecycle import StepKind
from prodsys_core.models import MergeInput, Run, Step, Task
from prodsys_core.naming import ChunkNames, PieceNames, TaskNames
from prodsys_core.ports import PandaJob

_NAMED = attrgetter(*"production type year files_home_prefix path soft prodslt phastver template".split())
"""In the order of TaskNames."""


def run_site(config: Config, run: Run, task: Task) -> Site | None:
    """Where a run's files are. One of which nothing was ever sent (all left out) counts for its task's first site."""
    return config.site(run.site or task.site_names[0])


NO_SITE = "no-site"
"""Reason of work whose site is not in the configuration: it waits until the site is there again."""


def no_site(run_site: str, task_sites: str) -> str:
    """The same for people."""
    return f"site {run_site or task_sites} is not in the configuration"


def task_names(task: Task) -> TaskNames:
    """What is called how in a task."""
    return TaskNames(tables.products(), *_NAMED(task))


def step_names(step: Step) -> ChunkNames | PieceNames:
    """The raw file of a reconstruct step, the merged file of a step on a group."""
    if step.kind == StepKind.RECONSTRUCT:
        return ChunkNames(step.run.number, step.job.chunk, step.job.file, step.job.path)
    return PieceNames(step.group.product, step.run.number, step.group.piece)


def step_outputs(step: Step, attempt: int) -> dict[str, str]:
    """LFN by product of an attempt of a PanDA step."""
    return task_names(step.task).outputs(step_names(step), attempt)


def priority(kind: str, task_type: str) -> int:
    """PanDA priority: merging before processing before filtering."""
    priorities = tables.products().priorities
    if kind != StepKind.RECONSTRUCT:
        return priorities["merge"]
    return priorities.get(task_type, priorities["reconstruct"])


def prepare(config: Config, site: Site, step: Step, number: int, inputs: Sequence[MergeInput]) -> PandaJob:
    """The step's next attempt, in batch `number`; a merge has `inputs`. Raises KeyError where the site has no command
    for it."""
    names, subject, attempt = task_names(step.task), step_names(step), step.attempt + 1
    lfns, command = names.outputs(subject, attempt), site.command_for(step.kind, step.task.type)
    if command is None:
        raise KeyError(f"site {site.name} has no command for {step.kind} of {step.task.type}")
    if isinstance(subject, ChunkNames):
        n_events, transformation, path = step.job.n_events, step.task.type, ""
    else:
        counts = [item.n_events for item in inputs]
        n_events = sum(counts) if subject.product == "mdst" and None not in counts else None
        transformation = tables.products().products[subject.product].transformation
        path = input_list_path(site, step)
    return PandaJob(
        job_name=names.job_name(subject, step.pk, attempt),
        batch_number=number,
        panda_queue=site.queue_for(step.kind),
        transformation=transformation,
        job_parameters=names.parameters(subject, lfns, command, step.work, n_events, path),
        outputs={lfn: "log" if product == "log" else "output" for product, lfn in lfns.items()},
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


def merge_inputs(steps: Iterable[Step]) -> dict[int, list[MergeInput]]:
    """Inputs of merge steps by group, in chunk order."""
    inputs: dict[int, list[MergeInput]] = {step.group_id: [] for step in steps}
    for ids in in_chunks(list(inputs)):
        for row in MergeInput.objects.filter(group__in=ids).order_by("pk"):
            inputs[row.group_id].append(row)
    return inputs


def input_list(site: Site, step: Step, inputs: Iterable[MergeInput]) -> tuple[str, str]:
    """Path and text of a merge step's list of inputs, one path a line; it must stand before the job is sent."""
    names, product = task_names(step.task), step.group.product
    lines = (f"{names.file_path(product, item.lfn)}\n" for item in inputs)
    return input_list_path(site, step), "".join(lines)


def input_list_path(site: Site, step: Step) -> str:
    """Where the list of a merge step's inputs stands on the site."""
    folder = site.files.lists or f"{site.files.root}/prodsys-lists"
    return f"{folder}/{step.work}.txt"
