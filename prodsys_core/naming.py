"""Names and job parameters: what files, PanDA jobs and places are called. Pure; the patterns are `data/products.yaml`.

Names of intermediate files carry the attempt, so a late attempt can never touch what another one wrote.
"""

import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from string import Formatter

from pydantic.dataclasses import dataclass as table


@table(frozen=True, slots=True, config={"extra": "forbid"})
class ProductNames:
    """Patterns of one product; `placeholder_size` is the size of an empty file's stand-in, None where there is none."""

    chunk_lfn: str
    chunk_place: str
    merged_lfn: str
    merged_place: str
    merged_final: str
    step: str
    transformation: str
    unit: str
    placeholder_size: int | None = None


@table(frozen=True, slots=True, config={"extra": "forbid"})
class ProductTable:
    """All products, logs, PanDA jobs, the environment of payloads, what each task type writes, priorities and places on
    tape."""

    products: Mapping[str, ProductNames]
    log_place: str
    chunk_log: str
    merged_log: str
    packed_log: str
    chunk_job: str
    merge_job: str
    environment: Mapping[str, str]
    types: Mapping[str, Sequence[str]]
    priorities: Mapping[str, int]
    tape: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ChunkNames:
    """One raw file: `raw` absolute on the site, `file` its name."""

    run: int
    chunk: int
    file: str
    raw: str


@dataclass(frozen=True, slots=True)
class PieceNames:
    """One merged file of a run; the first piece has no suffix."""

    product: str
    run: int
    piece: int


@dataclass(frozen=True, slots=True)
class TaskNames:
    """What is called how in one task: the fields of the task that go into names and job parameters."""

    table: ProductTable
    production: str
    type: str
    year: int | None
    prefix: str
    path: str
    soft: str
    slot: int
    phast: int
    template: str

    def _words(self, subject: ChunkNames | PieceNames | None = None, **more: object) -> dict[str, object]:
        """What patterns may hold."""
        names = ("production", "prefix", "path", "soft", "slot", "phast", "template")
        words = {name: getattr(self, name) for name in names} | {"year": self.year or ""}
        if isinstance(subject, PieceNames):
            words["suffix"] = f".{subject.piece:03d}" if subject.piece else ""
        return words | (asdict(subject) if subject else {}) | more

    def outputs(self, subject: ChunkNames | PieceNames, attempt: int) -> dict[str, str]:
        """LFN by product of what one attempt writes; the job log stands under "log"."""
        products = self.table.products
        if isinstance(subject, PieceNames):
            patterns = {subject.product: products[subject.product].merged_lfn, "log": self.table.merged_log}
        else:
            patterns = {name: products[name].chunk_lfn for name in self.table.types[self.type]}
            patterns["log"] = self.table.chunk_log
        words = self._words(subject, attempt=attempt)
        return {name: pattern.format_map(words) for name, pattern in patterns.items()}

    def job_name(self, subject: ChunkNames | PieceNames, step_id: int, attempt: int) -> str:
        """PanDA jobName of one attempt; unique, and the key to find it again."""
        pattern = self.table.merge_job if isinstance(subject, PieceNames) else self.table.chunk_job
        return pattern.format_map(self._words(subject, step=step_id, attempt=attempt))

    def final_name(self, piece: PieceNames) -> str:
        """Name of a merged file on tape: without attempt."""
        return self.table.products[piece.product].merged_final.format_map(self._words(piece))

    def packed_log_name(self, run: int) -> str:
        """Name of the file that holds all job logs of a run."""
        return self.table.packed_log.format_map(self._words(run=run))

    @property
    def base(self) -> str:
        """Directory of the production on the site: prefix + path + soft."""
        return f"{self.prefix}{self.path}{self.soft}"

    def file_path(self, product: str, lfn: str, merged: bool = False) -> str:
        """Absolute path on the site of a chunk's product, of a merged file or (product "log") of a job log."""
        return f"{self.base}/{self._place(product, merged).format_map(self._words())}/{lfn}"

    def _place(self, product: str, merged: bool) -> str:
        if product == "log":
            return self.table.log_place
        names = self.table.products[product]
        return names.merged_place if merged else names.chunk_place

    def tape_path(self, product: str, name: str) -> str:
        """Path on tape, relative to its root, of a merged file or (product "log") of a packed log."""
        root = self.table.tape.get(self.type, self.table.tape["other"])
        return f"{(root + self._place(product, True)).format_map(self._words())}/{name}"

    def parameters(
        self,
        subject: ChunkNames | PieceNames,
        lfns: Mapping[str, str],
        command: str,
        work: str,
        n_events: int | None,
        inputs: str = "",
    ) -> str:
        """jobParameters: environment words, then the command of the site's template. What a merge reads stands in a
        file `inputs` on the site, one path a line."""
        files = {"inputs": inputs, "out": lfns[subject.product]} if isinstance(subject, PieceNames) else lfns
        known = -1 if n_events is None else n_events
        words = self._words(subject, work=work, n_events=known, **files)
        places = defaultdict(str, words)  # what this kind of work does not have is empty, and not set
        values = {name: pattern.format_map(places) for name, pattern in self.table.environment.items()}
        environment = [f"{name}={shlex.quote(value)}" for name, value in values.items() if value]
        return " ".join([*environment, shlex.join(word.format_map(words) for word in shlex.split(command))])


def work_key(instance: str, task_id: int, kind: str, subject_id: int | str) -> str:
    """The same for all attempts of a step, different for all steps of all prodsys instances."""
    return f"{instance}.{task_id}.{kind.replace(' ', '-')}.{subject_id}"


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
