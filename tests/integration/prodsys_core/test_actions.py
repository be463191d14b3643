"""What a manager does to jobs and runs: shown first, done to exactly that, never lost against the tick."""

from pathlib import Path

import pytest
from prodsys_rig import write_tree

from prodsys_core.models import MergeInput, MergePlan, PandaAttempt, Run, Step, Transfer, Transition
from prodsys_core.services import runs
from prodsys_core.services.actions import ACTIONS, BadPick, Pick, pick_rows
from prodsys_core.services.looks import look_act
from prodsys_core.services.tasks import as_manager

FIRST, SECOND = "cdr11001-274495.raw", "cdr11002-274495.raw"


def act(rig, name, *, runs=(), files=(), why=""):
    pick = Pick(tuple(runs), tuple(files), why)
    rows = pick_rows(ACTIONS[name], rig.task(), pick)
    return ACTIONS[name].perform(rows, pick, as_manager("ann", rig.now))


def ticks(rig, n=4):
    for _ in range(n):
        rig.run_jobs()
        rig.tick()


def half_done(rig):
    """A run with one finished chunk and one that PanDA still has."""
    rig.sent_task({274495: [300, 200]})
    rig.run_jobs(only=lambda item: item.panda_id == 1001)
    rig.tick()


def suspicious(rig):
    """A run whose merged mDST lacks an event of its first chunk."""
    rig.sent_task({274495: [300, 200]})
    rig.run_jobs()
    write_tree(next(Path(rig.root, rig.folder.name).rglob("mDST-274495-11001-3-8.a1.root")), 299)
    rig.tick()
    ticks(rig, 3)
    assert Run.objects.get().status == "suspicious"


def test_run_is_closed_without_its_broken_chunk(rig):
    half_done(rig)
    assert act(rig, "exclude", runs=[274495], why="tape lost it") == 1
    rig.tick()
    assert rig.panda.jobs[1002].status == "cancelled"
    assert set(MergeInput.objects.values_list("job__file", flat=True)) == {FIRST}
    ticks(rig)
    assert rig.task().status == "done"
    moved = Transition.objects.get(subject="step", new="cancelled")
    assert (moved.who, moved.reason) == ("ann", "left-out: tape lost it")


def test_success_that_comes_after_the_exclusion_is_not_merged(rig):
    half_done(rig)
    act(rig, "exclude", files=[SECOND])
    rig.run_jobs(only=lambda item: item.panda_id == 1002)
    ticks(rig)
    assert set(MergeInput.objects.values_list("job__file", flat=True)) == {FIRST}
    assert PandaAttempt.objects.get(panda_id=1002).end.status == "finished"
    assert rig.task().status == "done"


def test_chunk_taken_in_again_is_sent_again_when_panda_is_done_with_it(rig):
    rig.sent_task({274495: [300, 200]})
    act(rig, "exclude", files=[SECOND])
    with pytest.raises(BadPick, match=SECOND):
        act(rig, "include", files=[SECOND])
    ticks(rig, 0)
    rig.tick()
    rig.tick()
    assert act(rig, "include", files=[SECOND]) == 1
    rig.tick()
    ticks(rig)
    assert set(MergeInput.objects.values_list("job__file", flat=True)) == {FIRST, SECOND}
    assert rig.task().status == "done"


def test_files_left_out_before_sending_are_never_sent(rig):
    rig.create({274495: [300, 200], 274496: [100]})
    rig.set("ready")
    rig.tick()
    act(rig, "exclude", files=[SECOND])
    act(rig, "exclude", runs=[274496])
    rig.set("send")
    rig.tick()
    assert len(rig.panda.jobs) == 1
    ticks(rig)
    assert rig.task().status == "done"


def test_plan_made_of_what_a_manager_changed_meanwhile_is_dropped(rig, monkeypatch):
    rig.sent_task({274495: [300, 200]})
    rig.run_jobs()
    read = runs._chunk_products

    def and_then_exclude(site, run):
        found = read(site, run)
        monkeypatch.setattr(runs, "_chunk_products", read)
        act(rig, "exclude", files=[SECOND])
        return found

    monkeypatch.setattr(runs, "_chunk_products", and_then_exclude)
    rig.tick()
    assert not MergePlan.objects.exists()
    rig.tick()
    assert set(MergeInput.objects.values_list("job__file", flat=True)) == {FIRST}


def test_second_generation_has_names_of_its_own_and_replaces_the_first(rig):
    suspicious(rig)
    assert act(rig, "merge-again", runs=[274495]) == 1
    act(rig, "exclude", files=[FIRST], why="events lost")
    rig.tick()
    assert list(MergePlan.objects.order_by("pk").values_list("generation", flat=True)) == [1, 2]
    names = [next(iter(item.job.outputs)) for item in rig.panda.jobs.values() if item.status == "activated"]
    assert "mDST-274495-3-8.a2.root" in names
    ticks(rig)
    assert rig.task().status == "done"
    assert Transfer.objects.count() == 3
    rig.set("archive")
    ticks(rig, 6)
    assert rig.task().status == "archived"
    left = sorted(path.name for path in Path(rig.root, rig.folder.name).rglob("mDST-*.root"))
    assert left == ["mDST-274495-3-8.a2.root"]


def test_chunk_is_left_out_of_a_run_that_is_being_merged_before_it_is_planned_again(rig):
    rig.sent_task({274495: [300, 200]})
    rig.run_jobs()
    rig.tick()
    assert Run.objects.get().status == "merging"
    (line,) = look_act("exclude", rig.task(), Pick(files=(FIRST,))).lines
    assert line.endswith("run 274495 is merging")
    assert act(rig, "exclude", files=[FIRST], why="broken") == 1
    rig.tick()
    plan = MergePlan.objects.get(generation=2)
    inputs = MergeInput.objects.filter(group__plan=plan)
    assert set(inputs.values_list("job__file", flat=True)) == {SECOND}
    ticks(rig, 5)
    assert rig.task().status == "done"


def test_suspicious_run_is_accepted_by_a_person_only(rig):
    suspicious(rig)
    assert act(rig, "accept-run", runs=[274495], why="known") == 1
    ticks(rig)
    assert rig.task().status == "done"


def test_suspicious_run_is_counted_again(rig):
    suspicious(rig)
    write_tree(next(Path(rig.root, rig.folder.name).rglob("mDST-274495-11001-3-8.a1.root")), 300)
    write_tree(next(Path(rig.root, rig.folder.name).rglob("mDST-274495-3-8.a1.root")), 500)
    act(rig, "check-again", runs=[274495])
    ticks(rig, 1)
    assert Run.objects.get().status == "checked"


@pytest.mark.parametrize(
    ("name", "named", "words"),
    [
        ("exclude", {}, "name runs"),
        ("exclude", {"files": ["cdr1-1.raw"]}, "file cdr1-1.raw"),
        ("merge-again", {"runs": [274495]}, "run 274495"),
        ("merge-again", {"files": [FIRST]}, "not files"),
        ("exclude", {"files": [FIRST], "why": "x\ny"}, "printable"),
    ],
)
def test_what_cannot_be_touched_is_named_and_nothing_is(rig, name, named, words):
    rig.sent_task({274495: [300]})
    with pytest.raises(BadPick, match=words):
        act(rig, name, **named)
    assert {step.status for step in Step.objects.all()} == {"sent"}


def test_unchecked_events_are_not_archived_until_a_manager_accepts_them(rig):
    files = [FIRST, SECOND]
    rig.sent_task({274495: [1]}, files_source="files list", files=files, runs=[], catalogue=None)
    for item in rig.panda.jobs.values():
        item.n_events = 0
    ticks(rig)
    assert rig.task().status == "done"
    assert {step.reason for step in rig.steps()} == {"events-unchecked"}
    rig.set("archive")
    ticks(rig)
    assert (rig.task().status, Run.objects.get().reason) == ("archive", "events-unchecked")
    assert rig.steps("archive logs") == []
    assert act(rig, "accept-events", files=[FIRST]) == 1
    ticks(rig)
    assert rig.task().status == "archive"
    assert act(rig, "accept-events", files=[SECOND], why="no catalogue") == 1
    ticks(rig)
    assert rig.task().status == "archived"
    accepted = Transition.objects.filter(subject="step", old="finished", new="finished")
    assert [row.reason for row in accepted.order_by("pk")] == ["accepted", "accepted: no catalogue"]
