# ruff: noqa: RUF012  (Django declares indexes and constraints as plain lists)
"""Rows. What a status means and who may change it stands in `lifecycle`; every change goes through `services.moves`.

One row per kind of work (`Step`), never a column per product. Attempts and their ends, transitions, counts and
transfers are append-only. No CHECK or conditional constraint: MariaDB through MySQL's backend has none.
"""

from django.db import models

from prodsys_core.lifecycle import RunStatus, StepStatus, TaskStatus

STATUS_LENGTH = 30
REASON_LENGTH = 60
MESSAGE_LENGTH = 500


class Reasoned(models.Model):
    """Why it stands where it stands: `reason` is one word for machines, `message` a sentence for people."""

    reason = models.CharField(max_length=REASON_LENGTH, blank=True, default="")
    message = models.CharField(max_length=MESSAGE_LENGTH, blank=True, default="")
    status_at = models.DateTimeField()

    class Meta:
        abstract = True


class Task(Reasoned):
    """What a production manager defines."""

    name = models.CharField(max_length=200, unique=True)
    type = models.CharField(max_length=50)
    sites = models.CharField(max_length=500, help_text="names, in the order in which runs are given to them")
    production = models.CharField(max_length=50)
    path = models.CharField(max_length=300)
    soft = models.CharField(max_length=50)
    year = models.PositiveSmallIntegerField(null=True)
    period = models.CharField(max_length=50, blank=True)
    prodslt = models.PositiveIntegerField(default=0)
    phastver = models.PositiveIntegerField(default=7)
    template = models.CharField(max_length=100)
    files_source = models.CharField(max_length=20)
    source = models.TextField(help_text="run numbers or raw file names, one a line")
    catalogue = models.CharField(max_length=1000, blank=True)
    files_home = models.CharField(max_length=300)
    files_home_prefix = models.CharField(max_length=300)
    max_attempts = models.PositiveSmallIntegerField(default=5)
    comment = models.TextField(blank=True)
    status = models.CharField(max_length=STATUS_LENGTH, default=TaskStatus.DRAFT.value, db_index=True)
    files_skipped = models.PositiveIntegerField(default=0, help_text="zero-event files left out")
    source_failures = models.PositiveIntegerField(default=0)
    next_try_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name

    @property
    def site_names(self) -> list[str]:
        """The task's sites in order."""
        return self.sites.split()


class MergeLimit(models.Model):
    """Declared size of the merged files of one product of a task."""

    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="merge_limits")
    product = models.CharField(max_length=10)
    bytes_max = models.BigIntegerField()
    events_max = models.BigIntegerField(null=True)
    files_max = models.IntegerField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["task", "product"], name="one_limit_per_product")]


class Run(Reasoned):
    """A data-taking run of a task: the unit of merging. `site`: where all of it is done, "" until its first attempt."""

    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="runs")
    number = models.PositiveIntegerField()
    site = models.CharField(max_length=50, blank=True, default="")
    status = models.CharField(max_length=STATUS_LENGTH, default=RunStatus.OPEN.value, db_index=True)
    next_try_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["task", "number"], name="run_once_per_task")]

    def __str__(self) -> str:
        return f"{self.task.name}, run {self.number}"


class Job(models.Model):
    """One raw file of one task. Its status is that of its reconstruct step. `n_events` null: not known; `corrected`: a
    manager gave it, the source's does not replace it. `home`: where the file lies, if not in the task's files_home.
    `undelivered`: what a delivery list found wrong with it; nothing of the job is sent until a later one does not."""

    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="jobs")
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="jobs")
    file = models.CharField(max_length=100)
    chunk = models.PositiveIntegerField()
    n_events = models.PositiveIntegerField(null=True)
    corrected = models.BooleanField(default=False)
    home = models.CharField(max_length=300, blank=True, default="")
    undelivered = models.CharField(max_length=MESSAGE_LENGTH, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["task", "file"], name="file_once_per_task"),
            models.UniqueConstraint(fields=["run", "chunk"], name="chunk_once_per_run"),
        ]

    def __str__(self) -> str:
        return self.file

    @property
    def path(self) -> str:
        """Where the raw file lies."""
        return f"{self.home or self.task.files_home}{self.file}"


class MergePlan(models.Model):
    """How a run is merged, made in one transaction; a later generation replaces an earlier one."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="merge_plans")
    generation = models.PositiveSmallIntegerField()
    made_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "generation"], name="generation_once_per_run")]


class MergeGroup(models.Model):
    """The chunks that become one merged file. `piece` numbers the files of a product, from 0."""

    plan = models.ForeignKey(MergePlan, on_delete=models.CASCADE, related_name="groups")
    product = models.CharField(max_length=10)
    piece = models.PositiveSmallIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["plan", "product", "piece"], name="piece_once_per_plan")
        ]


class MergeInput(models.Model):
    """One chunk's file in a group, with size and events written as its PanDA job reported them."""

    group = models.ForeignKey(MergeGroup, on_delete=models.CASCADE, related_name="inputs")
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="+")
    lfn = models.CharField(max_length=200)
    size = models.BigIntegerField()
    n_events = models.PositiveIntegerField(null=True)


class SendBatch(models.Model):
    """One submission call. `number` travels as jediTaskID. made: committed before the call; unknown: no answer, the
    server's lists are watched; settled: every job has its PanDA id or was certainly not stored."""

    number = models.BigIntegerField(unique=True)
    site = models.CharField(max_length=50)
    panda_queue = models.CharField(max_length=50)
    status = models.CharField(max_length=STATUS_LENGTH, db_index=True)
    n_jobs = models.PositiveIntegerField()
    made_at = models.DateTimeField()
    listed_digest = models.CharField(max_length=64, blank=True, default="")
    listed_since = models.DateTimeField(null=True)
    message = models.CharField(max_length=MESSAGE_LENGTH, blank=True, default="")


class Step(Reasoned):
    """One kind of work on a job, a merge group or a run. `attempt`: PanDA jobs made; `charged`: those that ended by
    the job's own doing, success included. `next_try_at` null in status failed: waits for a person."""

    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="steps")
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="steps")
    job = models.ForeignKey(Job, on_delete=models.CASCADE, null=True, related_name="steps")
    group = models.ForeignKey(MergeGroup, on_delete=models.CASCADE, null=True, related_name="steps")
    kind = models.CharField(max_length=20)
    work = models.CharField(max_length=100, unique=True)
    status = models.CharField(max_length=STATUS_LENGTH, default=StepStatus.DEFINED.value)
    attempt = models.PositiveSmallIntegerField(default=0)
    charged = models.PositiveSmallIntegerField(default=0)
    uncharged = models.PositiveSmallIntegerField(default=0)
    failures = models.PositiveSmallIntegerField(default=0, help_text="of work done here, in a row")
    panda_id = models.BigIntegerField(null=True)
    batch = models.ForeignKey(SendBatch, on_delete=models.SET_NULL, null=True, related_name="steps")
    next_try_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["task", "kind", "status"], name="step_by_task"),
            models.Index(fields=["run", "kind", "status"], name="step_by_run"),
            models.Index(fields=["status", "kind"], name="step_by_status"),
        ]

    def __str__(self) -> str:
        return self.work


class PandaAttempt(models.Model):
    """One PanDA job made for a step; committed before the call. Only `panda_id` is filled later, once."""

    step = models.ForeignKey(Step, on_delete=models.CASCADE, related_name="attempts")
    number = models.PositiveSmallIntegerField()
    job_name = models.CharField(max_length=200, unique=True)
    batch = models.ForeignKey(SendBatch, on_delete=models.PROTECT, related_name="attempts")
    panda_id = models.BigIntegerField(null=True, unique=True)
    made_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["step", "number"], name="attempt_number_once")]


class AttemptEnd(models.Model):
    """How an attempt ended. `files`: JSON, LFN -> [size, adler32 or null]. `charge` as in `verdicts`, or none.
    Events read and written as its pilot reported them; null: it did not."""

    attempt = models.OneToOneField(PandaAttempt, on_delete=models.CASCADE, related_name="end")
    status = models.CharField(max_length=STATUS_LENGTH)
    reason = models.CharField(max_length=REASON_LENGTH)
    message = models.CharField(max_length=MESSAGE_LENGTH, blank=True)
    charge = models.CharField(max_length=20)
    n_read = models.BigIntegerField(null=True)
    n_written = models.BigIntegerField(null=True)
    node = models.CharField(max_length=128, blank=True)
    files = models.TextField(default="{}")
    ended_at = models.DateTimeField(db_index=True)


class GroupCheck(models.Model):
    """What the cross-check counted for one merged file."""

    step = models.ForeignKey(Step, on_delete=models.CASCADE, related_name="counts")
    group = models.ForeignKey(MergeGroup, on_delete=models.CASCADE, related_name="+")
    unit = models.CharField(max_length=20)
    expected = models.BigIntegerField(null=True)
    in_chunks = models.BigIntegerField()
    in_merged = models.BigIntegerField()
    agrees = models.BooleanField()
    checked_at = models.DateTimeField()


class Transfer(models.Model):
    """One file on its way to long-term storage. Size and checksum are those read from the source."""

    step = models.OneToOneField(Step, on_delete=models.CASCADE, related_name="transfer")
    source = models.CharField(max_length=1000)
    target = models.CharField(max_length=1000)
    size = models.BigIntegerField()
    adler32 = models.CharField(max_length=8)
    asked_at = models.DateTimeField()
    confirmed_at = models.DateTimeField(null=True)


class Transition(models.Model):
    """Every change of a status: who, when, why. `subject` is task, run or step."""

    subject = models.CharField(max_length=5)
    subject_id = models.BigIntegerField()
    old = models.CharField(max_length=STATUS_LENGTH)
    new = models.CharField(max_length=STATUS_LENGTH)
    role = models.CharField(max_length=10)
    who = models.CharField(max_length=150)
    reason = models.CharField(max_length=REASON_LENGTH, blank=True)
    at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["subject", "subject_id"], name="story_of_subject")]


class Lease(models.Model):
    """Who runs the tick, when it was last done and what it did. `fence` grows with every new owner."""

    name = models.CharField(max_length=30, unique=True)
    owner = models.CharField(max_length=200)
    fence = models.BigIntegerField()
    until = models.DateTimeField()
    ticked_at = models.DateTimeField(null=True)
    last_tick = models.CharField(max_length=MESSAGE_LENGTH, blank=True, default="")


class LastLook(models.Model):
    """When PanDA was last asked for the status of all jobs."""

    name = models.CharField(max_length=30, unique=True)
    at = models.DateTimeField()
