"""Actions of the admin: offered to managers only, shown first, done to exactly what was shown, by the same rules."""

import re

import pytest
from django.test import Client

from prodsys_core.models import Job, Run, Step, Task, Transition
from prodsys_core.services.actions import ACTIONS, Pick
from prodsys_core.services.looks import look_act
from prodsys_core.services.tasks import as_manager

FIRST, SECOND = "cdr11001-274495.raw", "cdr11002-274495.raw"


def browser(*permissions):
    from django.contrib.auth.models import Permission, User

    User.objects.all().delete()
    user = User.objects.create_user("eve", password="a good one 1", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client(HTTP_HOST="localhost")
    client.force_login(user)
    return client


@pytest.fixture
def manager(rig):
    return browser("view_task", "view_run", "view_job", "change_task")


def post(client, rows, action, **values):
    """Choose the action for the rows; the answer's page."""
    address = f"/admin/prodsys/{rows[0]._meta.model_name}/"
    return client.post(address, {"action": action, "_selected_action": [row.pk for row in rows], **values})


def look(client, rows, action, **values):
    """(text of the look, digest that its button sends back)."""
    answer = post(client, rows, action, index=0, **values)
    assert answer.status_code == 200
    text = answer.content.decode()
    shown = re.search(r'name="shown" value="(\w+)"', text)
    return text, shown and shown[1]


def confirm(client, rows, action, **values):
    _, shown = look(client, rows, action, **values)
    return post(client, rows, action, shown=shown, **values)


def inspected(rig):
    rig.create({274495: [300, 200]})
    rig.set("ready")
    rig.tick()


def test_a_task_is_set_only_after_a_second_look_and_by_the_manager_who_asked(rig, manager):
    inspected(rig)
    look_act("exclude", rig.task(), Pick(files=(FIRST,))).perform(as_manager("ann", rig.now))
    text, shown = look(manager, [rig.task()], "set send")
    assert f"{FIRST}: left-out" in text
    assert (rig.task().status, bool(shown)) == ("jobs ready", True)
    assert post(manager, [rig.task()], "set send", shown=shown).status_code == 302
    assert rig.task().status == "send"
    moved = Transition.objects.get(subject="task", new="send")
    assert (moved.who, moved.role) == ("eve", "manager")


def test_what_changed_after_it_was_shown_is_shown_again_and_not_done(rig, manager):
    inspected(rig)
    _, shown = look(manager, [rig.task()], "set send")
    rig.write_catalogue({274495: [300, 200, 100]})
    answer = post(manager, [rig.task()], "set send", shown=shown)
    assert "has changed" in answer.content.decode()
    assert "cdr11003-274495.raw" in answer.content.decode()
    assert rig.task().status == "jobs ready"


def test_the_edges_of_the_command_line_hold_here(rig, manager):
    inspected(rig)
    text, shown = look(manager, [rig.task()], "set archive")
    assert "possible: cancelled, ready, send" in text
    assert shown is None
    assert post(manager, [rig.task()], "set archive", shown="x").status_code == 200
    assert rig.task().status == "jobs ready"


@pytest.mark.parametrize("permissions", [(), ("view_task", "view_run", "view_job", "view_step")])
def test_who_may_not_change_tasks_is_offered_nothing_and_can_do_nothing(rig, permissions):
    inspected(rig)
    client = browser(*permissions)
    for rows, action in (([rig.task()], "set send"), (list(Job.objects.all()), "exclude")):
        page = client.get(f"/admin/prodsys/{rows[0]._meta.model_name}/")
        assert action not in page.content.decode()
        post(client, rows, action, index=0)
        post(client, rows, action, shown="x")
    assert rig.task().status == "jobs ready"
    assert {step.status for step in Step.objects.all()} == {"defined"}


def test_jobs_are_corrected_and_left_out_with_a_reason(rig, manager):
    inspected(rig)
    first, second = Job.objects.order_by("chunk")
    text, shown = look(manager, [first], "correct")
    assert ("give --events or --home" in text, shown) == (True, None)
    assert look(manager, [first], "correct", events="many")[1] is None
    assert confirm(manager, [first], "correct", events="310", home="/other/raw/").status_code == 302
    assert confirm(manager, [second], "exclude", why="broken").status_code == 302
    first.refresh_from_db()
    assert (first.n_events, first.home) == (310, "/other/raw/")
    assert second.steps.get().reason == "left-out: broken"


def test_runs_and_their_failed_jobs_are_acted_on_task_by_task(rig, manager):
    rig.sent_task({274495: [300, 200]})
    rig.create({274495: [300]}, name="t2")
    rig.set("ready", "t2")
    rig.tick()
    assert confirm(manager, list(Run.objects.all()), "exclude").status_code == 302
    assert {step.status for step in Step.objects.all()} == {"cancelled"}
    Step.objects.update(status="failed", next_try_at=None)
    text, _ = look(manager, list(Task.objects.all()), "resend failed")
    assert text.count("attempt ") == Step.objects.count()
    confirm(manager, list(Task.objects.all()), "resend failed")
    assert {step.status for step in Step.objects.all()} == {"staged"}


def test_every_action_is_offered_where_it_can_be_used(rig, manager):
    inspected(rig)
    pages = {
        name: manager.get(f"/admin/prodsys/{name}/").content.decode()
        for name in ("task", "run", "job", "step")
    }
    for name, action in ACTIONS.items():
        assert f'value="{name}"' in pages["run"]
        assert (f'value="{name}"' in pages["job"]) == (not action.of_runs)
    assert 'value="set send"' in pages["task"]
    assert 'value="set running"' in pages["task"]
    assert "delete_selected" not in "".join(pages.values())


def test_text_that_others_wrote_is_escaped_in_a_look(rig, manager):
    inspected(rig)
    Step.objects.update(reason="<script>x")
    text, _ = look(manager, list(Job.objects.all()), "exclude", why='"><script>y')
    assert "<script>x" not in text
    assert "<script>y" not in text
