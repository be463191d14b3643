"""In `jobs ready` a manager looks, corrects, generates again; `send` shows what differs from the source first."""

import pytest

from prodsys_core.models import Job, Transition
from prodsys_core.selectors import task_rows
from prodsys_core.services.actions import BadPick, Pick
from prodsys_core.services.looks import look_act, look_set
from prodsys_core.services.tasks import as_manager

FIRST, SECOND = "cdr11001-274495.raw", "cdr11002-274495.raw"


def manager(rig):
    return as_manager("ann", rig.now)


def act(rig, name, **named):
    return look_act(name, rig.task(), Pick(**named)).perform(manager(rig))


def inspected(rig, chunks):
    rig.create(chunks)
    rig.set("ready")
    rig.tick()
    assert rig.task().status == "jobs ready"


def differences(rig):
    return list(look_set(rig.task(), "send", manager(rig)).lines)


def test_jobs_as_the_source_has_them_show_nothing_before_sending(rig):
    inspected(rig, {274495: [300, 0]})
    look = look_set(rig.task(), "send", manager(rig))
    assert (look.lines, look.unasked) == ((), True)
    assert look.perform(manager(rig)) == 1
    assert rig.task().status == "send"


def test_send_shows_every_difference_to_the_source_as_it_is_now(rig):
    inspected(rig, {274495: [300, 200, 100, 50]})
    act(rig, "correct", files=(FIRST,), events=310, why="counted")
    act(rig, "correct", files=(SECOND,), home="/other/raw/")
    act(rig, "exclude", files=("cdr11003-274495.raw",), why="broken")
    rig.write_catalogue({274495: [300, 200, 100, 0, 70]})
    assert differences(rig) == [
        f"{FIRST}: 310 events, in the source 300",
        f"{SECOND}: read from /other/raw/",
        "cdr11003-274495.raw: left-out: broken",
        "cdr11004-274495.raw: has a job, but the source has no such file with events",
        "cdr11005-274495.raw: in the source, but has no job; generate again",
    ]
    assert not look_set(rig.task(), "send", manager(rig)).unasked


def test_source_that_cannot_be_read_any_more_is_shown_before_sending(rig):
    inspected(rig, {274495: [300]})
    (rig.folder / "catalogue.txt").unlink()
    assert "the source cannot be read now" in differences(rig)[0]


def test_corrections_survive_generating_again_and_other_counts_follow_the_source(rig):
    inspected(rig, {274495: [300, 200]})
    act(rig, "correct", files=(FIRST,), events=310, home="/other/raw/")
    rig.write_catalogue({274495: [305, 205, 30]})
    for _ in range(2):
        rig.set("ready")
        rig.tick()
    assert list(Job.objects.order_by("chunk").values_list("n_events", "home")) == [
        (310, "/other/raw/"),
        (205, ""),
        (30, ""),
    ]


def test_corrected_count_and_place_are_what_panda_is_sent_and_the_end_is_judged_by(rig):
    inspected(rig, {274495: [300]})
    act(rig, "correct", files=(FIRST,), events=310, home="/other/raw/", why="counted")
    rig.set("send")
    rig.tick()
    job = rig.panda.jobs[1001].job
    assert job.n_events == 310
    assert f"PRODSYS_INPUTS=/other/raw/{FIRST}" in job.job_parameters
    rig.run_jobs()
    rig.tick()
    assert rig.step().status == "finished"
    (row,) = Transition.objects.filter(subject="step", old="defined", new="defined")
    assert (row.who, row.reason) == ("ann", "corrected home and n_events: counted")


@pytest.mark.parametrize(
    ("name", "named", "words"),
    [
        ("correct", {"files": (FIRST,)}, "give --events or --home"),
        ("correct", {"files": (FIRST,), "events": 0}, "1 to"),
        ("correct", {"files": (FIRST,), "home": "/a/../b/"}, "--home"),
        ("correct", {"files": (FIRST,), "home": "/a;b/"}, "--home"),
        ("exclude", {"files": (FIRST,), "events": 3}, "are for correct"),
        ("correct", {"events": 3}, "name runs"),
    ],
)
def test_what_cannot_be_a_correction_is_refused(rig, name, named, words):
    inspected(rig, {274495: [300]})
    with pytest.raises(BadPick, match=words):
        act(rig, name, **named)


def test_nothing_is_corrected_after_sending(rig):
    rig.sent_task({274495: [300]})
    with pytest.raises(BadPick, match=FIRST):
        act(rig, "correct", files=(FIRST,), events=3)


def test_cancelling_shows_what_panda_will_be_asked_to_end(rig):
    rig.sent_task({274495: [300, 200]})
    look = look_set(rig.task(), "cancelled", manager(rig))
    assert look.lines == ("2 reconstruct sent: PanDA is asked to end them",)
    with pytest.raises(BadPick, match="possible: cancelled, paused"):
        look_set(rig.task(), "archived", manager(rig))


@pytest.mark.parametrize("how", ["gone", "a directory", "not ASCII", "without the run"])
def test_an_unreadable_run_holds_its_task_and_says_so_until_it_can_be_read(rig, how):
    rig.create({274495: [300], 274496: [200]})
    path = rig.folder / "catalogue.txt"
    path.unlink()
    if how == "a directory":
        path.mkdir()
    elif how == "not ASCII":
        path.write_bytes(b"274495 cdr11001-274495.raw 300\n\xff\xfe\n")
    elif how == "without the run":
        path.write_text("274495 cdr11001-274495.raw 300\n")
    rig.set("ready")
    for _ in range(3):
        rig.tick(3600)
        with pytest.raises(BadPick, match="possible: cancelled, draft"):
            look_set(rig.task(), "send", manager(rig))
    (row,) = task_rows()
    assert (row["status"], row["reason"], row["jobs"]) == ("ready", "bad-source", {})
    assert ("run 274496" if how == "without the run" else str(path)) in row["message"]
    if how == "a directory":
        path.rmdir()
    rig.write_catalogue({274495: [300], 274496: [200]})
    rig.tick(3600)
    assert (rig.task().status, rig.task().message, len(rig.steps())) == ("jobs ready", "", 2)


def test_generating_again_from_what_cannot_be_read_keeps_the_jobs_and_is_not_released(rig):
    inspected(rig, {274495: [300]})
    (rig.folder / "catalogue.txt").write_text("274495 cdr11001-274495.raw many\n")
    rig.set("ready")
    rig.tick()
    assert (rig.task().status, rig.task().reason, Job.objects.get().n_events) == ("ready", "bad-source", 300)
