"""qstat: options, operands and what each form shows. Pure."""

from __future__ import annotations

import getopt
from collections.abc import Mapping, Sequence

from simulators.torque import lists, texts, usage
from simulators.torque.errors import Pbse
from simulators.torque.job import BatchJob, JobArray, Letter
from simulators.torque.model import TorqueModel
from simulators.torque.request import Reply, Request

_LETTERS = "f1xtanriqQBu:"
# Letters of the real qstat that nothing here stands behind.
_NOT_SIMULATED = "eGMRsW"
# What -r and -i show.
_GOING = {"-r": (Letter.RUNNING,), "-i": (Letter.QUEUED, Letter.HELD, Letter.WAITING)}
Item = BatchJob | JobArray


def qstat(model: TorqueModel, request: Request, now: float) -> Reply:
    """Every form of the site's scripts: plain, -f, -f -1, -x, -t, -a, -n -1, -u, -r, -i, -q, -Q, -B."""
    if request.words == ("--version",):
        return Reply(usage.VERSION)
    try:
        pairs, operands = getopt.gnu_getopt(list(request.words), _LETTERS)
    except getopt.GetoptError as error:
        if error.opt in _NOT_SIMULATED:
            return Reply(stderr=f"qstat: option -{error.opt} is not simulated\n", exit_code=2)
        return Reply(stderr=f"qstat: invalid option -- '{error.opt}'\n{usage.QSTAT}", exit_code=2)
    options = dict(pairs)
    if "-q" in options:
        return Reply(lists.render_queues(model))
    if "-Q" in options:
        return _queues(model, options, operands)
    if "-B" in options:
        rows, name = lists.server_rows(model), model.site.server_name
        full = texts.render_block("Server", name, rows, "-1" in options) if "-f" in options else ""
        return Reply(full or lists.render_server_line(model))
    items, errors, code = _select(model, options, operands)
    if code and not items:
        return Reply(stderr=errors, exit_code=code)
    return Reply(_render(options, items, model, now), errors, code)


def _queues(model: TorqueModel, options: Mapping[str, str], operands: Sequence[str]) -> Reply:
    for name in operands:
        if name not in model.site.queues:
            no = f"qstat: Unknown queue MSG=cannot locate queue {name} \n"
            return Reply(stderr=no, exit_code=Pbse.UNKQUE % 256)
    names = tuple(operands or model.site.queues)
    if "-f" not in options:
        return Reply(lists.render_queue_table(model, names))
    one_line = "-1" in options
    return Reply(
        "".join(texts.render_block("Queue", name, lists.queue_rows(name, model), one_line) for name in names)
    )


def _select(
    model: TorqueModel, options: Mapping[str, str], operands: Sequence[str]
) -> tuple[list[Item], str, int]:
    """What is shown, what is said of the rest, and the exit code of the last that failed."""
    items: list[Item] = []
    errors, code = "", 0
    for operand in operands:
        found = _operand(model, operand, options)
        if isinstance(found, str):
            errors += found
            code = Pbse.UNKQUE % 256 if "queue" in found else Pbse.UNKJOBID % 256
        else:
            items += found
    return (items if operands else _all(model, "-t" in options)), errors, code


def _all(model: TorqueModel, elements: bool) -> list[Item]:
    """Every job in the order of submission; an array as one item unless its elements are asked for."""
    items: list[Item] = []
    seen: set[int] = set()
    for job in model.jobs.values():
        if elements or job.index is None:
            items.append(job)
        elif job.sequence not in seen:
            seen.add(job.sequence)
            items.append(model.arrays[f"{job.sequence}[].{model.site.server_name}"])
    return items


def _operand(model: TorqueModel, operand: str, options: Mapping[str, str]) -> list[Item] | str:
    if not operand[:1].isdigit():
        if operand in model.site.queues:
            return [item for item in _all(model, "-t" in options) if item.queue == operand]
        return f"qstat: Unknown queue destination {operand}\n"
    full = full_id(model, operand)
    if full in model.arrays:
        if "-t" in options:
            return [model.jobs[i] for i in model.arrays[full].elements if i in model.jobs]
        # A fault of 6.1.3: with -f an array's id shows every job (captured).
        return _all(model, False) if "-f" in options else [model.arrays[full]]
    job = model.jobs.get(full)
    return [job] if job is not None else f"qstat: Unknown Job Id Error {full}\n"


def _render(options: Mapping[str, str], items: Sequence[Item], model: TorqueModel, now: float) -> str:
    if "-x" in options:
        return texts.render_data((item.batch_id, _rows(item, model, now)) for item in items)
    if "-f" in options:
        one_line = "-1" in options
        return "".join(
            texts.render_block("Job Id", item.batch_id, _rows(item, model, now), one_line) for item in items
        )
    long = [letter for letter in ("-a", "-n", "-r", "-i", "-u") if letter in options]
    if long:
        jobs = [item for item in items if isinstance(item, BatchJob)]
        for letter in long:
            jobs = [job for job in jobs if letter not in _GOING or job.state in _GOING[letter]]
        if "-u" in options:
            users = options["-u"].split(",")
            jobs = [job for job in jobs if job.submission.owner in users]
        return lists.render_long(jobs, model, now, hosts="-n" in options)
    lines = []
    for item in items:
        if isinstance(item, JobArray):
            lines.append(texts.render_array_line(item, _elements(item, model)))
        else:
            lines += texts.render_lines([item], now, model.site)
    return texts.render_table(lines)


def _rows(item: Item, model: TorqueModel, now: float) -> list[texts.Row]:
    if isinstance(item, JobArray):
        return list(texts.array_rows(item, _elements(item, model), model.site))
    return list(texts.job_rows(item, now, model.site))


def _elements(array: JobArray, model: TorqueModel) -> list[BatchJob]:
    return [model.jobs[batch_id] for batch_id in array.elements if batch_id in model.jobs]


def full_id(model: TorqueModel, text: str) -> str:
    """A job id with its server, which users may leave out."""
    return text if "." in text else f"{text}.{model.site.server_name}"
