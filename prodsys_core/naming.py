"""Names and job parameters: what files, PanDA jobs and places are called. Pure; the patterns are `data/products.yaml`.

Names of intermediate files carry the attempt, so a late attempt can never touch what another one wrote.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter

from prodsys_core.ports import OutputFile


@dataclass(frozen=True, slots=True)
class ProductNames:
    """Patterns of one product; `placeholder_size` is the size of an empty file's stand-in, None where there is none."""

    product: str
    chunk_lfn: str
    chunk_place: str
    merged_lfn: str
    merged_place: str
    merged_final: str
    step: str
    transformation: str
    unit: str
    placeholder_size: int | None = None


@dataclass(frozen=True, slots=True)
class ProductTable:
    """All products, logs, what each task type writes, priorities and places on tape."""

    products: Mapping[str, ProductNames]
    log_place: str
    chunk_log: str
    merged_log: str
    packed_log: str
    types: Mapping[str, Sequence[str]]
    priorities: Mapping[str, int]
    tape: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TaskNames:
    """The fields of a task that go into names and job parameters."""

    task_id: int
    production: str
    type: str
    year: int | None
    prefix: str
    path: str
    soft: str
    slot: int
    phast: int
    template: str

    @property
    def base(self) -> str:
        """Directory of the production on the site: prefix + path + soft."""
        return f"{self.prefix}{self.path}{self.soft}"


@dataclass(frozen=True, slots=True)
class ChunkNames:
    """One raw file: `path` absolute on the site, `file` its name."""

    run: int
    chunk: int
    file: str
    path: str


@dataclass(frozen=True, slots=True)
class PieceNames:
    """One merged file of a run."""

    product: str
    run: int
    piece: int


def work_key(instance: str, task_id: int, kind: str, subject_id: int | str) -> str:
    """The same for all attempts of a step, different for all steps of all prodsys instances."""
    return f"{instance}.{task_id}.{kind.replace(' ', '-')}.{subject_id}"


def chunk_outputs(table: ProductTable, task: TaskNames, chunk: ChunkNames, attempt: int) -> dict[str, str]:
    """LFN by product of what one attempt on one raw file writes; the job log stands under "log"."""
    words = _words(task) | {"run": chunk.run, "chunk": chunk.chunk, "attempt": attempt}
    lfns = {name: table.products[name].chunk_lfn.format_map(words) for name in table.types[task.type]}
    return lfns | {"log": table.chunk_log.format_map(words)}


def merged_outputs(table: ProductTable, task: TaskNames, piece: PieceNames, attempt: int) -> dict[str, str]:
    """LFN of a merged file (under its product) and of the merge job's log."""
    names = table.products[piece.product]
    words = _piece_words(names, task, piece) | {"attempt": attempt}
    return {piece.product: names.merged_lfn.format_map(words), "log": table.merged_log.format_map(words)}


def final_name(table: ProductTable, task: TaskNames, piece: PieceNames) -> str:
    """Name of a merged file on tape: without attempt; the first piece has no suffix."""
    names = table.products[piece.product]
    return names.merged_final.format_map(_piece_words(names, task, piece))


def packed_log_name(table: ProductTable, task: TaskNames, run: int) -> str:
    """Name of the file that holds all job logs of a run."""
    return table.packed_log.format_map(_words(task) | {"run": run})


def chunk_path(table: ProductTable, task: TaskNames, product: str, lfn: str) -> str:
    """Absolute path on the site of a chunk's product or (product "log") of a job log."""
    place = table.log_place if product == "log" else table.products[product].chunk_place
    return f"{task.base}/{place.format_map(_words(task))}/{lfn}"


def merged_path(table: ProductTable, task: TaskNames, product: str, lfn: str) -> str:
    """Absolute path on the site of a merged file."""
    return f"{task.base}/{table.products[product].merged_place.format_map(_words(task))}/{lfn}"


def tape_path(table: ProductTable, task: TaskNames, product: str, name: str) -> str:
    """Path on tape, relative to its root, of a merged file or (product "log") of a packed log."""
    root = table.tape.get(task.type, table.tape["other"]).format(path=task.path, soft=task.soft)
    place = table.log_place if product == "log" else table.products[product].merged_place
    return f"{root}{place.format_map(_words(task))}/{name}"


def chunk_job_name(task: TaskNames, chunk: ChunkNames, step_id: int, attempt: int) -> str:
    """PanDA jobName of one attempt on a raw file; unique, and the key to find it again."""
    year = "" if task.year is None else task.year
    return f"{task.production}-{year}--{chunk.run}-{chunk.chunk}-{task.slot}-{task.phast}-{step_id}-{attempt}"


def merge_job_name(
    table: ProductTable, task: TaskNames, piece: PieceNames, step_id: int, attempt: int
) -> str:
    """PanDA jobName of one attempt on a merged file."""
    label = _label(table.products[piece.product])
    return f"{task.production}-{label}-{piece.run}-ch{piece.piece:03d}-{step_id}-{attempt}"


def declared(lfns: Mapping[str, str]) -> tuple[OutputFile, ...]:
    """The PanDA file list of LFNs by product."""
    return tuple(OutputFile(lfn, "log" if product == "log" else "output") for product, lfn in lfns.items())


def render_chunk_parameters(
    task: TaskNames, chunk: ChunkNames, lfns: Mapping[str, str], command: str, work: str, n_events: int | None
) -> str:
    """jobParameters of a reconstruct job: environment words, then the command of the site's template."""
    environment = {
        "PRODSYS_WORK": work,
        "PRODSYS_NEVENTS": str(-1 if n_events is None else n_events),
        "PRODSYS_INPUTS": chunk.path,
        **_base_words(task),
        "TMPRAWFILE": chunk.file,
        "TMPMDSTFILE": lfns.get("mdst", ""),
        "TMPHISTFILE": lfns.get("hist", ""),
        "EVTDUMPFILE": lfns.get("dump", ""),
    }
    places = {"raw": chunk.path, "template": task.template, "run": chunk.run, "chunk": chunk.chunk, **lfns}
    return _render(environment, command, places)


def render_merge_parameters(
    task: TaskNames,
    lfns: Mapping[str, str],
    product: str,
    list_path: str,
    command: str,
    work: str,
    n_events: int | None,
) -> str:
    """jobParameters of a merge job; its inputs stand in a file on the site, one path per line."""
    environment = {
        "PRODSYS_WORK": work,
        "PRODSYS_NEVENTS": str(-1 if n_events is None else n_events),
        "PRODSYS_INPUT_LIST": list_path,
        **_base_words(task),
    }
    return _render(environment, command, {"inputs": list_path, "out": lfns[product]})


def command_problem(command: str, names: frozenset[str]) -> str | None:
    """None if a command template can be rendered with exactly these placeholders, else why not."""
    try:
        words = shlex.split(command)
        fields = {field for word in words for _, field, _, _ in Formatter().parse(word) if field is not None}
    except ValueError as error:
        return str(error)
    unknown = sorted(fields - names)
    if unknown:
        return f"unknown placeholder {unknown[0]!r}; possible: {', '.join(sorted(names))}"
    return None if words else "empty command"


def _render(environment: Mapping[str, str], command: str, places: Mapping[str, object]) -> str:
    words = [word.format_map(places) for word in shlex.split(command)]
    settings = [f"{name}={shlex.quote(value)}" for name, value in environment.items() if value]
    return " ".join([*settings, shlex.join(words)])


def _base_words(task: TaskNames) -> dict[str, str]:
    return {
        "COMPASS_SW_PREFIX": task.prefix,
        "COMPASS_SW_PATH": task.path,
        "PRODSOFT": task.soft,
        "prodSlt": str(task.slot),
    }


def _words(task: TaskNames) -> dict[str, object]:
    return {"production": task.production, "slot": task.slot, "phast": task.phast}


def _piece_words(names: ProductNames, task: TaskNames, piece: PieceNames) -> dict[str, object]:
    suffix = f".{piece.piece:03d}" if piece.piece else ""
    return _words(task) | {
        "run": piece.run,
        "piece": suffix,
        "piece_number": piece.piece,
        "label": _label(names),
    }


def _label(names: ProductNames) -> str:
    return names.step.replace(" ", "-")
