"""Django's admin over the rows: a window. Nothing is changed here, statuses move by `prodsys task`."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from prodsys_core.models import (
    AttemptEnd,
    GroupCheck,
    Job,
    MergeGroup,
    PandaAttempt,
    Run,
    SendBatch,
    Step,
    Task,
    Transfer,
    Transition,
)


class ReadOnly(admin.ModelAdmin):
    """A window on a table."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Task)
class TaskAdmin(ReadOnly):
    list_display = ("name", "type", "sites", "production", "status", "files_skipped", "message")
    list_filter = ("status", "type")
    search_fields = ("name", "production", "soft")


@admin.register(Run)
class RunAdmin(ReadOnly):
    list_display = ("number", "task", "site", "status", "message")
    list_filter = ("status", "site", "task")
    list_select_related = ("task",)
    search_fields = ("number",)


@admin.register(Job)
class JobAdmin(ReadOnly):
    list_display = ("file", "task", "run", "chunk", "n_events")
    list_filter = ("task",)
    list_select_related = ("task", "run", "run__task")
    search_fields = ("file",)


@admin.register(Step)
class StepAdmin(ReadOnly):
    list_display = (
        "work",
        "kind",
        "status",
        "attempt",
        "charged",
        "uncharged",
        "panda_id",
        "next_try_at",
        "message",
    )
    list_filter = ("kind", "status", "task")
    search_fields = ("work", "panda_id")


@admin.register(PandaAttempt)
class PandaAttemptAdmin(ReadOnly):
    list_display = ("job_name", "number", "panda_id", "batch_id", "made_at")
    search_fields = ("job_name", "panda_id")


@admin.register(AttemptEnd)
class AttemptEndAdmin(ReadOnly):
    list_display = ("attempt_id", "status", "charge", "reason", "message", "n_events", "node", "ended_at")
    list_filter = ("status", "charge", "reason")


@admin.register(SendBatch)
class SendBatchAdmin(ReadOnly):
    list_display = ("number", "panda_queue", "status", "n_jobs", "made_at", "message")
    list_filter = ("status", "panda_queue")


@admin.register(MergeGroup)
class MergeGroupAdmin(ReadOnly):
    list_display = ("plan_id", "product", "piece")
    list_filter = ("product",)


@admin.register(GroupCheck)
class GroupCheckAdmin(ReadOnly):
    list_display = ("group_id", "unit", "expected", "in_chunks", "in_merged", "agrees", "checked_at")
    list_filter = ("agrees", "unit")


@admin.register(Transfer)
class TransferAdmin(ReadOnly):
    list_display = ("target", "size", "adler32", "asked_at", "confirmed_at")
    search_fields = ("target",)


@admin.register(Transition)
class TransitionAdmin(ReadOnly):
    list_display = ("at", "subject", "subject_id", "old", "new", "role", "who", "reason")
    list_filter = ("subject", "new", "role")
    search_fields = ("subject_id",)
