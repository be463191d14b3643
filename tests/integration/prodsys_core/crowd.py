"""A thousand runs of one chunk each, put into the database at the stage that a test is about."""

import json
import zlib

from prodsys_core.lifecycle import Role
from prodsys_core.models import (
    AttemptEnd,
    Job,
    MergeGroup,
    MergeInput,
    MergePlan,
    PandaAttempt,
    Run,
    SendBatch,
    Step,
    Task,
    Transfer,
)
from prodsys_core.services.jobs import step_outputs, task_names
from prodsys_core.services.moves import Mover
from prodsys_core.services.runs import current_groups

FIRST = 274000
N = 1000
PLACE = 500
"""Of the first poisoned row; the others follow."""


def poison(rows, poisons):
    """Give each poison a row of its own: {primary key: reason}."""
    wanted = {}
    for row, (change, reason) in zip(rows[PLACE:], poisons, strict=False):
        change(row)
        wanted[row.pk] = reason
    return wanted


def held(model, **of):
    """{primary key: reason} of rows that say why they wait."""
    return dict(model.objects.filter(**of).exclude(reason="").values_list("pk", "reason"))


def save(row, **columns):
    """Write columns past every check."""
    type(row).objects.filter(pk=row.pk).update(**columns)


class Crowd:
    """Event dumps only: one product, and files that are plain bytes."""

    def __init__(self, rig, product="dump"):
        self.rig, self.product = rig, product
        site = rig.config.sites[0]
        commands = site.commands | {"reconstruct": "ddd {raw} {dump}"}
        rig.config = rig.config.model_copy(update={"sites": [site.model_copy(update={"commands": commands})]})
        rig.at_once(active_max=10**6, waiting_min=10**6, submit_chunk=5000)
        self.task = rig.create({FIRST: [300]}, type="DDD filtering")
        Task.objects.update(status="running")
        self.task.refresh_from_db()
        self.service = self.service_at(rig)
        self.next_id = 0

    @staticmethod
    def service_at(rig):
        return Mover("test", Role.SERVICE, rig.now)

    def chunks(self, status="staged", run_status="open"):
        """Runs, jobs and reconstruct steps."""
        now, task = self.rig.now, self.task
        Run.objects.bulk_create(
            Run(task=task, number=FIRST + k, site="DEMO", status=run_status, status_at=now) for k in range(N)
        )
        runs = list(Run.objects.order_by("pk"))
        Job.objects.bulk_create(
            Job(task=task, run=run, file=f"cdr00001-{run.number}.raw", chunk=1, n_events=300) for run in runs
        )
        Step.objects.bulk_create(
            Step(
                **{"task": task, "run": job.run, "job": job, "kind": "reconstruct", "work": f"r{job.pk}"},
                **{"status": status, "status_at": now},
            )
            for job in Job.objects.select_related("run").order_by("pk")
        )
        return self

    def steps(self, kind="reconstruct"):
        return list(
            Step.objects.filter(kind=kind).select_related("task", "run", "job", "group").order_by("pk")
        )

    def attempted(self, kind="reconstruct", batches=1, known=True):
        """An attempt of each step, in one batch or in one each; `known`: with its PanDA id."""
        now = self.rig.now
        SendBatch.objects.bulk_create(
            SendBatch(
                **{"number": 10**8 + self.next_id + k, "site": "DEMO", "panda_queue": "LONG", "n_jobs": 1},
                **{"status": "answered" if known else "unknown", "made_at": now},
            )
            for k in range(batches)
        )
        made = list(SendBatch.objects.filter(number__gte=10**8 + self.next_id).order_by("pk"))
        attempts = []
        for place, step in enumerate(self.steps(kind)):
            self.next_id += 1
            ids = {"job_name": f"n{self.next_id}", "panda_id": self.next_id if known else None}
            attempts.append(
                PandaAttempt(step=step, number=1, batch=made[place % batches], made_at=now, **ids)
            )
        PandaAttempt.objects.bulk_create(attempts)
        Step.objects.filter(kind=kind).update(attempt=1)
        return self

    def ended(self, kind="reconstruct"):
        """Each step has finished with its file and its log on the site."""
        self.attempted(kind)
        Step.objects.filter(kind=kind).update(status="finished")
        ends = []
        for attempt in PandaAttempt.objects.filter(step__kind=kind).select_related(
            "step__task", "step__run", "step__job", "step__group"
        ):
            files = {}
            for product, lfn in step_outputs(attempt.step, 1).items():
                content = b"log" if product == "log" else b"e" * 300
                self.write(self.path(attempt.step, product, lfn), content)
                files[lfn] = [len(content), f"{zlib.adler32(content):08x}"]
            ends.append(
                AttemptEnd(
                    **{"attempt": attempt, "status": "finished", "reason": "finished", "charge": "own"},
                    **{"n_read": 300, "n_written": 300, "files": json.dumps(files), "ended_at": self.rig.now},
                )
            )
        AttemptEnd.objects.bulk_create(ends)
        return self

    def path(self, step, product, lfn):
        return self.rig.root / task_names(step.task).file_path(
            product, lfn, merged=step.kind != "reconstruct"
        )

    def write(self, path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def planned(self):
        """A merge of each run, waiting to be sent."""
        now = self.rig.now
        MergePlan.objects.bulk_create(
            MergePlan(run=run, generation=1, made_at=now) for run in Run.objects.order_by("pk")
        )
        plans = list(MergePlan.objects.order_by("pk"))
        MergeGroup.objects.bulk_create(MergeGroup(plan=plan, product=self.product, piece=0) for plan in plans)
        groups = list(MergeGroup.objects.select_related("plan__run").order_by("pk"))
        chunks = {step.run_id: step for step in self.steps()}
        inputs, merges = [], []
        for group in groups:
            chunk = chunks[group.plan.run_id]
            lfn = step_outputs(chunk, 1).get(self.product, "other")
            inputs.append(MergeInput(group=group, job=chunk.job, lfn=lfn, size=300, n_events=300))
            merges.append(self.local(f"merge {self.product}", chunk, group))
        MergeInput.objects.bulk_create(inputs)
        Step.objects.bulk_create(merges)
        Run.objects.update(status="merging")
        return self

    def local(self, kind, chunk, group=None):
        subject = f"g{group.pk}" if group else f"run{chunk.run_id}"
        columns = {"kind": kind, "work": f"{kind} {subject}", "status": "ready", "status_at": self.rig.now}
        return Step(task=self.task, run=chunk.run, group=group, **columns)

    def opened(self, kind, status="ready"):
        """One step of a kind of work that is done here for each run."""
        groups = {group.plan.run_id: group for group in current_groups().select_related("plan")}
        steps = [
            self.local(kind, chunk, groups[chunk.run_id] if kind == "transfer" else None)
            for chunk in self.steps()
        ]
        Step.objects.bulk_create(steps)
        Step.objects.filter(kind=kind).update(status=status)
        return self

    def on_tape(self, kind, root):
        """Transfers that were asked for, with their receipts."""
        rows = []
        for step in self.steps(kind):
            target = f"kept/{step.run.number}"
            seen = {"size": 300, "adler32": f"{zlib.adler32(b'e' * 300):08x}"}
            self.write(root / "receipts" / f"{target}.json", json.dumps(seen).encode())
            rows.append(Transfer(step=step, source="/x", target=target, asked_at=self.rig.now, **seen))
        Transfer.objects.bulk_create(rows)
        return self
