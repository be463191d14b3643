"""A small PanDA in memory, payloads that write small files, and a hand on the clock."""

import shlex
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy
import uproot
from django.conf import settings

from prodsys_core import models
from prodsys_core.ports import Description, FileSeen, Unavailable
from prodsys_core.services.tasks import as_manager, task_create, task_set
from prodsys_core.taskfile import TaskFile
from prodsys_core.tick import tick

START = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
LOST = Unavailable("answer lost")
PLACEHOLDER = b"PanDA message: the file is empty\n"


@dataclass
class Stored:
    """A job in the fake server."""

    panda_id: int
    job: object
    status: str = "activated"
    n_events: int | None = None
    n_written: int | None = None
    codes: dict = None
    files: tuple = ()


class FakePanda:
    """JobSink in memory. `lose_answers`: store so many of the next call's jobs and lose the answer."""

    def __init__(self):
        self.jobs = {}
        self.calls = []
        self.lose_after = None
        self.down = False
        self.before_descriptions = None
        self.forgets = set()
        self.next_id = 1000

    def alive(self):
        return Unavailable("down", reached=False) if self.down else True

    def submit(self, jobs):
        self.calls.append(len(jobs))
        if self.down:
            return Unavailable("down")
        stored = jobs if self.lose_after is None else jobs[: self.lose_after]
        answer = dict(self.store(job) for job in stored)
        if self.lose_after is not None:
            self.lose_after = None
            return LOST
        return answer

    def store(self, job):
        self.next_id += 1
        self.jobs[self.next_id] = Stored(self.next_id, job, codes={})
        return job.job_name, self.next_id

    def job_ids(self, number):
        if self.down:
            return Unavailable("down")
        return tuple(sorted(pk for pk, item in self.jobs.items() if item.job.batch_number == number))

    def statuses(self, ids):
        if self.down:
            return Unavailable("down")
        return {
            pk: self.jobs[pk].status if pk in self.jobs and pk not in self.forgets else "unknown"
            for pk in ids
        }

    def descriptions(self, ids):
        if self.down:
            return Unavailable("down")
        if self.before_descriptions:
            self.before_descriptions()
        return {pk: self.describe(pk) for pk in ids if pk in self.jobs and pk not in self.forgets}

    def describe(self, pk):
        item = self.jobs[pk]
        return Description(
            pk,
            item.job.job_name,
            item.job.attempt_nr,
            item.status,
            item.n_events,
            item.codes,
            {},
            item.files,
            "node1",
            item.n_written,
        )

    def cancel(self, ids):
        for pk in ids:
            if self.jobs[pk].status in ("activated", "running"):
                self.jobs[pk].status = "cancelled"
        return dict.fromkeys(ids, True)


class Rig:
    """One task on one site, driven tick by tick."""

    def __init__(self, root: Path, folder: Path):
        self.root, self.folder = root, folder
        self.panda, self.now, self.config = FakePanda(), START, settings.PRODSYS

    def at_once(self, **changes):
        """Change PanDA's part of the configuration."""
        self.config = self.config.model_copy(update={"panda": self.config.panda.model_copy(update=changes)})

    def tick(self, seconds=1.0):
        self.now += timedelta(seconds=seconds)
        report = tick(self.config, self.panda, self.now)
        assert not report.failed, report
        return report

    def set(self, status, name="t1"):
        return task_set(name, status, as_manager("ann", self.now))

    def write_catalogue(self, chunks):
        """`chunks`: {run: [events of chunk 11001, 11002, ...]}."""
        lines = [
            f"{run} cdr{11001 + place}-{run}.raw {events}"
            for run, counts in chunks.items()
            for place, events in enumerate(counts)
        ]
        path = self.folder / "catalogue.txt"
        path.write_text("\n".join(lines) + "\n", encoding="ascii")
        return path

    def create(self, chunks, name="t1", replace=False, **fields):
        path = self.write_catalogue(chunks)
        values = {
            "name": name,
            "type": "mass production",
            "site": "DEMO",
            "production": f"prod{self.folder.name}",
            "path": "generalprod/",
            "soft": name,
            "year": 2016,
            "prodslt": 3,
            "phastver": 8,
            "files_source": "runs list",
            "runs": list(chunks),
            "catalogue": str(path),
            "files_home": f"{self.root}/raw/",
            "files_home_prefix": f"{self.root}/{self.folder.name}/",
        }
        file = TaskFile.model_validate(values | fields)
        return task_create(self.config, file, as_manager("ann", self.now), replace)

    def sent_task(self, chunks, **fields):
        """A task with its jobs in PanDA."""
        task = self.create(chunks, **fields)
        self.set("ready")
        self.tick()
        self.set("send")
        self.tick()
        return task

    def task(self, name="t1"):
        return models.Task.objects.get(name=name)

    def steps(self, kind="reconstruct"):
        return list(models.Step.objects.filter(kind=kind).order_by("pk"))

    def step(self, kind="reconstruct"):
        return models.Step.objects.get(kind=kind)

    def run_jobs(self, status="finished", only=None, **changes):
        """End every live PanDA job; a finished one has its files on the site."""
        for item in list(self.panda.jobs.values()):
            if item.status not in ("activated", "running") or (only and not only(item)):
                continue
            if status == "finished":
                item.files = self.write_outputs(item.job)
                item.n_events = item.n_written = item.job.n_events
            item.status = status
            for name, value in changes.items():
                setattr(item, name, value)

    def write_outputs(self, job):
        words = shlex.split(job.job_parameters)
        environment = dict(word.split("=", 1) for word in words if "=" in word)
        base = environment["COMPASS_SW_PREFIX"] + environment["COMPASS_SW_PATH"] + environment["PRODSOFT"]
        inputs = []
        if "PRODSYS_INPUT_LIST" in environment:
            inputs = Path(environment["PRODSYS_INPUT_LIST"]).read_text().split()
        seen = []
        for lfn, kind in job.outputs.items():
            path = Path(base, place_of(lfn, environment["prodSlt"]), lfn)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_product(path, int(environment["PRODSYS_NEVENTS"]), inputs)
            content = path.read_bytes()
            seen.append(FileSeen(lfn, kind, len(content), f"{zlib.adler32(content):08x}"))
        return tuple(seen)


def place_of(lfn, slot):
    merged = lfn.count("-") < (4 if lfn.startswith("mDST") else 2)
    if lfn.endswith(".job.log.tgz"):
        return "logFiles"
    if lfn.startswith("mDST"):
        return "mDST" if merged else "mDST.chunks"
    if lfn.startswith("evtdump"):
        return f"mergedDump/slot{slot}" if merged else f"evtdump/slot{slot}"
    return "histos" if lfn.startswith("histsum") else "TRAFDIC"


def write_product(path, n_events, inputs):
    if path.name.endswith(".tgz"):
        path.write_bytes(b"log of " + path.name.encode())
    elif path.name.startswith("evtdump"):
        joined = b"".join(Path(name).read_bytes() for name in inputs)
        path.write_bytes(joined or (PLACEHOLDER if n_events == 13 else b"e" * n_events))
    elif path.name.startswith("mDST"):
        total = sum(count_tree(name) for name in inputs) if inputs else n_events
        write_tree(path, total)
    else:
        with uproot.recreate(path) as file:
            entries = sum(count_entries(name) for name in inputs) if inputs else n_events
            file["h"] = numpy.histogram(numpy.full(max(entries, 0), 0.5), bins=2, range=(0, 1))


def write_tree(path, n):
    with uproot.recreate(path) as file:
        file.mktree("mDST", {"x": "int32"})
        if n:
            file["mDST"].extend({"x": numpy.arange(n, dtype="int32")})


def count_tree(name):
    with uproot.open(name) as file:
        return file["mDST"].num_entries


def count_entries(name):
    with uproot.open(name) as file:
        return int(file["h"].values().sum())
