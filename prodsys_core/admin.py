"""Django's admin: every table to look at, and what a manager may do to tasks, runs and jobs.

Nothing is changed here but by the actions of the command line under the same rules: shown first (`services.looks`),
then done to exactly what was shown. Only who may change tasks (permission `prodsys.change_task`) is offered them.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse

from prodsys_core import models
from prodsys_core.lifecycle import Role
from prodsys_core.services.actions import ACTIONS, BadPick, Pick
from prodsys_core.services.looks import Look, look_act, look_resend, look_set
from prodsys_core.services.moves import Mover, NotAllowed
from prodsys_core.services.tasks import as_manager
from prodsys_core.tables import edges
from prodsys_core.yamlfile import load_table

LINES_SHOWN = 1000
"""Lines of a look on its page; the command line shows all."""
SET = {f"set {new}": f"Set to {new}" for (_, new), roles in edges("task").items() if Role.MANAGER in roles}
RESEND = {f"resend {old}": f"Try again: {old}" for old in ("failed", "manual check is needed")}
OFFERED: Mapping[type, Mapping[str, str]] = {
    models.Task: SET | RESEND,
    models.Run: {name: f"{name}: {action.text}" for name, action in ACTIONS.items()},
    models.Job: {name: f"{name}: {action.text}" for name, action in ACTIONS.items() if not action.of_runs},
}


class Window(admin.ModelAdmin):
    """A table to look at, with the actions that are offered on its rows."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_change_permission = has_delete_permission = has_add_permission

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        offered = OFFERED.get(self.model, {}) if request.user.has_perm("prodsys.change_task") else {}
        return {name: (perform, name, text) for name, text in offered.items()}


def perform(window: Window, request: HttpRequest, rows: QuerySet[Any]) -> TemplateResponse | None:
    """Show what the chosen action would touch; do it once exactly that was shown and confirmed."""
    given, name = request.POST, request.POST["action"]
    mover = as_manager(request.user.get_username(), datetime.now(UTC))
    try:
        looks = _looks(name, rows, given, mover)
        lines = [line for head, look in looks.items() for line in (head, *look.lines)]
        shown = hashlib.sha256("\n".join((name, *lines)).encode()).hexdigest()
        if given.get("shown") == shown:
            done = sum(look.perform(mover) for look in looks.values())
            window.message_user(request, f"{name}: {done} done")
            return None
        error = "What would be touched has changed: look again." if "shown" in given else ""
    except (BadPick, NotAllowed, ValueError) as problem:
        lines, shown, error = [], "", str(problem)
    context = {
        **admin.site.each_context(request),
        "title": OFFERED[rows.model][name],
        "corrects": name in ACTIONS and ACTIONS[name].corrects,
        "lines": lines[:LINES_SHOWN],
        "more": max(0, len(lines) - LINES_SHOWN),
        **{"name": name, "shown": shown, "error": error, "given": given, "kind": rows.model._meta.model_name},
        "selected": given.getlist(admin.helpers.ACTION_CHECKBOX_NAME),
    }
    return TemplateResponse(request, "prodsys_core/act.html", context)


def _looks(name: str, rows: QuerySet[Any], given: Mapping[str, str], mover: Mover) -> dict[str, Look]:
    """What the action would touch, by task. Raises BadPick, or ValueError for a number that is none."""
    if rows.model is models.Task:
        word, _, status = name.partition(" ")
        return {
            f"task {task.name}, {task.status}": look_set(task, status, mover)
            if word == "set"
            else look_resend(task, status)
            for task in rows
        }
    by_task: dict[models.Task, list[Any]] = {}
    for row in rows.select_related("task"):
        by_task.setdefault(row.task, []).append(row.number if rows.model is models.Run else row.file)
    kind = "runs" if rows.model is models.Run else "files"
    events, home = given.get("events") or None, given.get("home") or None
    values = {"why": given.get("why", ""), "events": int(events) if events else None, "home": home}
    return {
        f"task {task.name}, {task.status}": look_act(name, task, Pick(**{kind: tuple(named)}, **values))
        for task, named in by_task.items()
    }


for name, table in load_table("pages.yaml", dict[str, dict[str, str]]).items():
    model = getattr(models, name)
    options = {option: words.split() for option, words in table.items()}
    admin.site.register(model, Window, list_select_related=model in (models.Run, models.Job), **options)
