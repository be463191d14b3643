"""Several sites; sites change while tasks run: what is sent where, what is taken back, how much may wait."""

from datetime import timedelta

import pytest
from prodsys_rig import START

from prodsys_core.config import Downtime
from prodsys_core.models import AttemptEnd, Run, Step
from prodsys_core.ports import Unavailable
from prodsys_core.selectors import job_rows, run_rows


def change(rig, **fields):
    """The configuration of the one site is another one from the next tick on."""
    site = rig.config.sites[0].model_copy(update=fields)
    rig.config = rig.config.model_copy(update={"sites": [site]})


@pytest.mark.parametrize(
    ("status", "type_", "sent"),
    [
        ("online", "mass production", 2),
        ("test", "mass production", 0),
        ("test", "test production", 2),
        ("drain", "mass production", 0),
        ("offline", "mass production", 0),
    ],
)
def test_only_an_open_site_gets_new_work(rig, status, type_, sent):
    change(rig, status=status)
    rig.sent_task({274495: [300, 200]}, type=type_)
    assert len(rig.panda.jobs) == sent


def test_a_draining_site_keeps_what_it_has(rig):
    rig.sent_task({274495: [300, 200]})
    change(rig, status="drain")
    rig.tick()
    assert {item.status for item in rig.panda.jobs.values()} == {"activated"}
    assert {step.status for step in rig.steps()} == {"sent"}


def test_what_waits_at_an_offline_site_is_taken_back_uncharged_and_sent_again_when_it_is_online(rig):
    rig.sent_task({274495: [300, 200]})
    rig.panda.jobs[1001].status = "running"
    rig.tick()
    change(rig, status="offline")
    rig.tick()
    assert [rig.panda.jobs[pk].status for pk in (1001, 1002)] == ["running", "cancelled"]
    rig.tick()
    kept, back = sorted(rig.steps(), key=lambda step: step.panda_id)
    assert (kept.status, back.status) == ("running", "staged")
    assert (back.attempt, back.charged, back.uncharged) == (1, 0, 0)
    rig.tick()
    assert len(rig.panda.jobs) == 2
    change(rig, status="online")
    rig.tick()
    assert [item.job.attempt_nr for item in rig.panda.jobs.values()] == [1, 1, 2]


def test_nothing_is_taken_back_before_panda_has_confirmed_the_end(rig):
    rig.sent_task({274495: [300]})
    rig.panda.cancel = lambda ids: Unavailable("answer lost")
    change(rig, status="offline")
    rig.tick()
    change(rig, status="online")
    rig.tick()
    assert len(rig.panda.jobs) == 1
    assert rig.step().status == "sent"


def test_a_job_that_finished_instead_of_being_taken_back_counts(rig):
    rig.sent_task({274495: [300]})
    rig.panda.cancel = lambda ids: dict.fromkeys(ids, True)
    change(rig, status="offline")
    rig.tick()
    rig.run_jobs()
    rig.tick()
    assert (rig.step().status, rig.step().charged) == ("finished", 1)


def test_a_downtime_is_offline_from_its_begin_to_its_end(rig):
    downtime = Downtime(begins=START + timedelta(hours=1), ends=START + timedelta(hours=2))
    change(rig, downtimes=(downtime,))
    rig.sent_task({274495: [300]})
    rig.tick(3600)
    rig.tick()
    assert rig.step().status == "staged"
    rig.tick(3600)
    assert rig.step().status == "sent"


def test_no_more_waits_in_a_queue_than_it_finishes_in_queue_days(rig):
    rig.at_once(waiting_min=3, queue_days=1.0)
    rig.sent_task({274495: [300] * 20})
    assert len(rig.panda.jobs) == 3
    rig.run_jobs(status="running")
    rig.tick()
    assert len(rig.panda.jobs) == 6  # three run, three wait
    rig.run_jobs()
    rig.tick()
    assert AttemptEnd.objects.count() == 6
    assert len(rig.panda.jobs) == 12
    rig.tick(2 * 86400)
    assert Step.objects.filter(status="sent").count() == 6


def test_the_last_chunk_of_a_run_goes_before_larger_ones_of_others(rig):
    rig.at_once(waiting_min=9)
    rig.sent_task({274495: [100] * 10})
    rig.create({274500: [9000, 9000]}, name="t2")
    rig.set("ready", "t2")
    rig.tick()
    rig.set("send", "t2")
    rig.tick()
    assert len(rig.panda.jobs) == 9
    rig.run_jobs()
    rig.tick()
    sent = [item.job.job_name.split("-")[3] for item in rig.panda.jobs.values()][9:]
    assert sent == ["274495", "274500", "274500"]


def two_sites(rig, **first):
    """Two sites, A before B, each with queues of its own; `first` changes A."""
    demo = rig.config.sites[0].model_copy(update={"status": "online"})
    queues = [{"panda_queue": f"L{name}", "merge_queue": f"S{name}"} for name in "AB"]
    both = [demo.model_copy(update={"name": name, **queue}) for name, queue in zip("AB", queues, strict=True)]
    rig.config = rig.config.model_copy(update={"sites": [both[0].model_copy(update=first), both[1]]})


def queues_by_run(rig):
    """{run: queues that its PanDA jobs were sent to}."""
    found = {}
    for step in Step.objects.exclude(batch=None).select_related("run"):
        found.setdefault(step.run.number, set()).add(step.batch.panda_queue)
    return found


def test_first_open_site_with_room_takes_a_run_and_the_next_one_the_others(rig):
    two_sites(rig)
    rig.at_once(waiting_min=2)
    rig.sent_task({274495: [300] * 3, 274496: [300], 274497: [300] * 2}, site=["A", "B"])
    assert dict(Run.objects.values_list("number", "site")) == {274495: "A", 274496: "B", 274497: "B"}
    assert queues_by_run(rig) == {274495: {"LA"}, 274496: {"LB"}, 274497: {"LB"}}


def test_a_run_is_never_split_and_its_merges_go_where_its_files_are(rig):
    two_sites(rig)
    rig.at_once(waiting_min=2)
    rig.sent_task({274495: [300] * 6, 274496: [300]}, site=["A", "B"])
    for _ in range(8):
        rig.run_jobs()
        rig.tick()
    assert queues_by_run(rig) == {274495: {"LA", "SA"}, 274496: {"LB", "SB"}}
    assert rig.task().status == "done"


@pytest.mark.parametrize("status", ["test", "drain", "offline"])
def test_a_closed_site_is_passed_over(rig, status):
    two_sites(rig, status=status)
    rig.sent_task({274495: [300, 200]}, site=["A", "B"])
    assert (Run.objects.get().site, queues_by_run(rig)) == ("B", {274495: {"LB"}})


def test_a_closed_site_gets_no_run_and_keeps_the_ones_it_has(rig):
    two_sites(rig)
    rig.at_once(waiting_min=1)
    rig.sent_task({274495: [300] * 2, 274496: [300], 274497: [300]}, site=["A", "B"])
    rig.run_jobs()
    two_sites(rig, status="drain")
    rig.tick()
    rig.run_jobs()
    rig.tick()
    assert dict(Run.objects.values_list("number", "site")) == {274495: "A", 274496: "B", 274497: "B"}
    assert Step.objects.filter(run__number=274495, status="staged").count() == 1
    two_sites(rig)
    rig.tick()
    assert queues_by_run(rig)[274495] == {"LA"}


def test_a_run_of_which_nothing_ran_leaves_a_closed_site_for_the_next_one(rig):
    two_sites(rig)
    rig.sent_task({274495: [300, 200]}, site=["A", "B"])
    two_sites(rig, status="offline")
    for _ in range(3):
        rig.tick()
    assert Run.objects.get().site == "B"
    assert [item.job.panda_queue for item in rig.panda.jobs.values()] == ["LA", "LA", "LB", "LB"]
    assert {step.charged + step.uncharged for step in rig.steps()} == {0}


def test_a_run_of_which_a_job_runs_stays_at_its_closed_site(rig):
    two_sites(rig)
    rig.sent_task({274495: [300, 200]}, site=["A", "B"])
    rig.panda.jobs[1001].status = "running"
    rig.tick()
    two_sites(rig, status="offline")
    for _ in range(3):
        rig.tick()
    assert (Run.objects.get().site, len(rig.panda.jobs)) == ("A", 2)


def test_without_an_open_site_a_run_waits_for_the_first_that_opens(rig):
    two_sites(rig, status="offline")
    rig.sent_task({274495: [300]}, site=["A"])
    assert (Run.objects.get().site, rig.step().status) == ("", "staged")
    two_sites(rig)
    rig.tick()
    assert Run.objects.get().site == "A"


def leave(rig):
    """Site A leaves the configuration."""
    rig.config = rig.config.model_copy(update={"sites": rig.config.sites[1:]})


def test_jobs_of_a_site_that_left_the_configuration_say_so_and_go_on_when_it_is_back(rig):
    two_sites(rig)
    rig.at_once(waiting_min=1)
    rig.sent_task({274495: [300] * 3}, site=["A", "B"])
    rig.run_jobs()
    leave(rig)
    rig.tick()
    rig.run_jobs()
    rig.tick()
    waiting = [row for row in job_rows(rig.task()) if row["status"] == "staged"]
    assert [(row["reason"], row["message"]) for row in waiting] == [
        ("no-site", "site A is not in the configuration")
    ] * 2
    assert all(row["next_try_at"] for row in waiting)
    two_sites(rig)
    rig.tick(70)
    assert queues_by_run(rig) == {274495: {"LA"}}
    assert {row["reason"] for row in job_rows(rig.task()) if row["status"] == "staged"} == {""}


def test_a_task_that_names_no_site_of_the_configuration_says_so(rig):
    two_sites(rig)
    rig.create({274495: [300]}, site=["A"])
    rig.set("ready")
    rig.tick()
    leave(rig)
    rig.set("send")
    rig.tick()
    assert [row["reason"] for row in job_rows(rig.task())] == ["no-site"]
    two_sites(rig)
    rig.tick(70)
    assert rig.step().status == "sent"


def test_work_done_here_waits_for_its_site_however_long_and_nothing_is_done_without_it(rig):
    two_sites(rig)
    rig.sent_task({274495: [300]}, site=["A"])
    rig.run_jobs()
    rig.tick()
    rig.run_jobs()
    leave(rig)
    for _ in range(10):
        rig.tick(700)
    (row,) = run_rows(rig.task())
    assert (row["status"], row["reason"], row["next_try_at"] > rig.now.isoformat()) == (
        "merging",
        "no-site",
        True,
    )
    two_sites(rig)
    rig.tick(70)
    leave(rig)
    for _ in range(3):
        rig.tick(700)
    assert rig.task().status == "running"
    two_sites(rig)
    for _ in range(4):
        rig.tick(700)
    assert (rig.task().status, Run.objects.get().reason) == ("done", "")
