# ruff: noqa: E402  (models can be imported only after Django is set up)
"""The part of prodsys' figures that runs in a process with Django: `python -m bench.prodsys_services WHAT ENGINE DIR`.

Reads a run's number from each line of its input and prints that run's figures as one JSON object.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "prodsys_core.settings.local")
import django

django.setup()

from django.conf import settings
from django.db import connection

from bench.prodsys import JOBS, write_task
from prodsys_core.lifecycle import Role, StepStatus, TaskStatus
from prodsys_core.models import AttemptEnd, LastLook, Run, Step, Task, Transition
from prodsys_core.panda import HttpJobSink
from prodsys_core.ports import Description, FileSeen, PandaJob
from prodsys_core.services import runs, tasks
from prodsys_core.services.answers import batches_settle
from prodsys_core.services.following import jobs_follow
from prodsys_core.services.moves import Mover
from prodsys_core.services.sending import steps_send, steps_stage
from prodsys_core.taskfile import TaskFile
from prodsys_core.tick import tick
from prodsys_core.wire import positional
from prodsys_core.yamlfile import load_yaml
from simulators.panda.http import PandaHttpServer
from simulators.panda.jobspec import parse_jobs
from simulators.panda.model import PandaModel
from simulators.panda.service import PandaServer

_IDS = itertools.count(1)
START = datetime(2026, 1, 1, tzinfo=UTC)
TASKS = 3


class Server:
    """JobSink in this process that keeps what it is sent: a model of PanDA (to be served) or bare records."""

    def __init__(self, model: PandaModel | None = None) -> None:
        self.model = model
        self.jobs: dict[int, PandaJob] = {}
        self.ended: set[int] = set()
        self.status = "activated"

    def alive(self) -> bool:
        """Always."""
        return True

    def submit(self, jobs: Sequence[PandaJob]) -> dict[str, int | None]:
        """Stores them all."""
        if self.model is not None:
            stored = self.model.submit(parse_jobs([positional(job) for job in jobs]))
            return {name: panda_id for panda_id, _, name in stored}
        ids = [next(_IDS) for _ in jobs]
        self.jobs.update(zip(ids, jobs, strict=True))
        return {job.job_name: panda_id for panda_id, job in zip(ids, jobs, strict=True)}

    def job_ids(self, batch_number: int) -> tuple[int, ...]:
        """Jobs of a batch."""
        return tuple(pk for pk, job in self.jobs.items() if job.batch_number == batch_number)

    def statuses(self, ids: Sequence[int]) -> Mapping[int, str]:
        """Finished, or what all others are."""
        return {pk: "finished" if pk in self.ended else self.status for pk in ids}

    def descriptions(self, ids: Sequence[int]) -> Mapping[int, Description]:
        """Records with 1,000 bytes for each file."""
        return {
            pk: Description(
                pk, job.job_name, job.attempt_nr, self.statuses([pk])[pk], job.n_events,
                files=tuple(FileSeen(lfn, kind, 1000, "00000001") for lfn, kind in job.outputs.items()),
                n_written=job.n_events,
            )
            for pk, job in ((pk, self.jobs[pk]) for pk in ids)
        }  # fmt: skip

    def cancel(self, ids: Sequence[int]) -> Mapping[int, bool]:
        """Taken."""
        return dict.fromkeys(ids, True)


def make_task(work: Path, name: str, jobs: int, chunks: int = 1000) -> Task:
    """A task in `send` with its jobs."""
    config, ann = settings.PRODSYS, tasks.as_manager("ann", START)
    tasks.task_create(config, load_yaml(write_task(work, name, jobs, chunks), TaskFile), ann)
    tasks.task_set(name, TaskStatus.READY, ann)
    tasks.tasks_generate(config, Mover("bench", Role.SERVICE, START))
    task = tasks.task_set(name, TaskStatus.SEND, ann)
    assert task is not None
    return task


# --- status ---------------------------------------------------------------------------------------------------


def prepare_status(work: Path, engine: str) -> Callable[[int], Mapping[str, float]]:
    """150,000 jobs that are sent; the server, a process of its own, has them all finished."""
    config, mover, model = settings.PRODSYS, Mover("bench", Role.SERVICE, START), PandaModel()
    made = [make_task(work, f"s{number}", JOBS) for number in range(TASKS)]
    steps_stage(mover)
    sent = steps_send(config, Server(model), mover)
    assert sent == TASKS * JOBS, sent
    for job in model.jobs.values():
        job.status, job.since_s, job.attributes["jobStatus"] = "finished", 1.0, "finished"
        n_events = job.attributes["jobParameters"].partition("PRODSYS_NEVENTS=")[2].split()[0]
        job.attributes |= {"nEvents": int(n_events), "jobMetrics": f"eventsWritten={n_events}"}
        for file in job.files:
            file |= {"fsize": 1000, "checksum": "ad:00000001", "status": "ready"}
    connection.close()
    panda = config.panda.model_copy(update={"url": _serve(model)})
    model.jobs.clear()
    config = config.model_copy(update={"panda": panda})

    def take(run: int) -> Mapping[str, float]:
        begun_s = time.monotonic()
        ended = jobs_follow(config, HttpJobSink(panda), mover)
        spent_s = time.monotonic() - begun_s
        assert ended == TASKS * JOBS, ended
        assert Step.objects.filter(status=StepStatus.FINISHED).count() == ended
        assert AttemptEnd.objects.count() == ended
        _set_back(made)
        return {f"prodsys.status_150k_s_{engine}": spent_s}

    return take


def _serve(model: PandaModel) -> str:
    """The model over HTTP in a child process, which ends with this one; gives its address."""
    server = PandaHttpServer(("127.0.0.1", 0), PandaServer(model))
    ours, theirs = os.pipe()
    if os.fork() == 0:
        import threading

        os.close(theirs)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        os.read(ours, 1)  # until the other end is gone
        os._exit(0)
    os.close(ours)
    host, port = server.server_address[:2]
    server.socket.close()
    return f"http://{host!s}:{port}"


def _set_back(made: Sequence[Task]) -> None:
    AttemptEnd.objects.all()._raw_delete("default")
    Transition.objects.all()._raw_delete("default")
    LastLook.objects.all().delete()
    Step.objects.all().update(status=StepStatus.SENT, charged=0, reason="", message="")
    Task.objects.filter(pk__in=[task.pk for task in made]).update(status=TaskStatus.SEND)


# --- one run --------------------------------------------------------------------------------------------------


@contextmanager
def counted() -> Iterator[list[int]]:
    """Number of statements inside."""
    count = [0]

    def wrap(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        count[0] += 1
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrap):
        yield count


def prepare_run(work: Path, engine: str) -> Callable[[int], Mapping[str, float]]:
    """A fresh task of 1,100 chunks each time, and one of four such runs beside it."""
    config = settings.PRODSYS

    def live(name: str, n_runs: int) -> tuple[Task, float]:
        server, mover = Server(), Mover("bench", Role.SERVICE, START)
        Task.objects.all().update(status=TaskStatus.CANCELLED)
        task = make_task(work, name, 1100 * n_runs, chunks=1100)
        LastLook.objects.all().delete()
        with counted() as count:
            assert steps_stage(mover) == 1100 * n_runs
            assert steps_send(config, server, mover) == 1100 * n_runs
            batches_settle(config, server, mover)
            server.status = "running"
            jobs_follow(config, server, mover)
            server.ended = set(server.jobs)
            assert jobs_follow(config, server, mover) == 1100 * n_runs
        return task, count[0] / (1.1 * n_runs)

    def take(run: int) -> Mapping[str, float]:
        AttemptEnd.objects.all()._raw_delete("default")
        many = live(f"many{run}", 4)[1]
        task, few = live(f"few{run}", 1)
        begun_s = time.monotonic()
        planned = runs.runs_merge(config, Mover("bench", Role.SERVICE, START))
        plan_s = time.monotonic() - begun_s
        assert planned == Run.objects.filter(task=task, status="merging").count() == 1
        queries = max(many, few)
        return {
            "prodsys.queries_per_1000": queries,
            "prodsys.merge_latency_ticks": _latency(work, f"late{run}"),
            "prodsys.plan_1100_s": plan_s,
        }

    def _latency(folder: Path, name: str) -> int:
        Task.objects.all().update(status=TaskStatus.CANCELLED)
        Step.objects.filter(status=StepStatus.SENT).update(status=StepStatus.CANCELLED)
        server, now = Server(), START
        make_task(folder, name, 50, chunks=50)
        while len(server.jobs) < 50:
            now += timedelta(seconds=30)
            tick(config, server, now)
        server.ended = set(server.jobs)
        for number in range(1, 100):
            now += timedelta(seconds=30)
            tick(config, server, now)
            if len(server.jobs) > 50:
                return number
        raise AssertionError("no merge was sent")

    return take


PREPARE = {"status": prepare_status, "run": prepare_run}


def main(what: str, engine: str, work: str) -> int:
    """Figures of one run for each line of the input."""
    take = PREPARE[what](Path(work), engine)
    for line in sys.stdin:
        print(json.dumps(take(int(line))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
