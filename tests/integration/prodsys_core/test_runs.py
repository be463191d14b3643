"""Merge, cross-check, tape, archive."""

from argparse import Namespace
from pathlib import Path

from prodsys_rig import write_tree

from prodsys_core import verbs
from prodsys_core.models import GroupCheck, MergeGroup, MergeInput, PandaAttempt, Run, Step, Transfer
from prodsys_core.services import local, runs
from prodsys_core.services.looks import look_resend
from prodsys_core.services.tasks import as_manager, resend_candidates, steps_resend


def ended(rig, chunks, **fields):
    """A task whose reconstruct jobs are finished, seen by one tick."""
    rig.sent_task(chunks, **fields)
    rig.run_jobs()
    rig.tick()


def merged(rig, chunks, **fields):
    ended(rig, chunks, **fields)
    rig.run_jobs()


def files(rig, pattern):
    return sorted(path.name for path in Path(rig.root, rig.folder.name).rglob(pattern))


def test_no_merge_before_the_last_chunk(rig):
    rig.sent_task({274495: [300, 200]})
    rig.run_jobs(only=lambda item: item.panda_id == 1001)
    rig.tick()
    assert MergeGroup.objects.count() == 0
    assert Run.objects.get().status == "open"


def test_nothing_of_a_run_is_read_before_its_last_chunk(rig, monkeypatch):
    rig.sent_task({274495: [300, 200]})
    rig.run_jobs(only=lambda item: item.panda_id == 1001)
    monkeypatch.setattr(runs, "_chunk_products", None)  # whoever calls it has its run held
    rig.tick()
    assert [step.status for step in rig.steps()] == ["finished", "sent"]
    assert Run.objects.get().reason == ""


def test_last_chunk_leads_to_sent_merges_in_one_tick(rig):
    ended(rig, {274495: [300, 200]})
    merges = [item.job for item in rig.panda.jobs.values() if item.panda_id > 1002]
    assert sorted(job.transformation for job in merges) == ["merging dump", "merging hist", "merging mdst"]
    assert {(job.panda_queue, job.priority) for job in merges} == {("SHORT", 5000)}
    mdst = next(job for job in merges if job.transformation == "merging mdst")
    assert mdst.n_events == 500
    assert next(iter(mdst.outputs)) == "mDST-274495-3-8.a1.root"
    step = Step.objects.get(kind="merge mdst")
    listed = Path(rig.root, "prodsys-lists", f"{step.work}.txt").read_text().split()
    assert [Path(name).name for name in listed] == [
        "mDST-274495-11001-3-8.a1.root",
        "mDST-274495-11002-3-8.a1.root",
    ]


def test_merge_takes_the_attempt_that_finished(rig):
    rig.sent_task({274495: [300, 200]})
    rig.run_jobs(only=lambda item: item.panda_id == 1001)
    rig.run_jobs(status="failed", codes={"pilotErrorCode": 1379})
    rig.tick()
    rig.run_jobs()
    rig.tick()
    inputs = MergeInput.objects.filter(group__product="mdst").order_by("pk")
    assert [row.lfn for row in inputs] == ["mDST-274495-11001-3-8.a1.root", "mDST-274495-11002-3-8.a2.root"]


def test_merge_leaves_out_an_attempt_that_finished_with_other_events(rig):
    rig.sent_task({274495: [300]})
    rig.run_jobs()
    next(iter(rig.panda.jobs.values())).n_events = 299
    rig.tick()
    steps_resend(resend_candidates(rig.task(), "manual check is needed"), as_manager("ann", rig.now))
    rig.tick()
    rig.run_jobs()
    rig.tick()
    inputs = MergeInput.objects.filter(group__product="mdst")
    assert [row.lfn for row in inputs] == ["mDST-274495-11001-3-8.a2.root"]


def test_mdst_is_cut_to_the_declared_size(rig):
    ended(rig, {274495: [300, 200, 250, 100]}, merge={"mdst_events": 500})
    groups = MergeGroup.objects.filter(product="mdst").order_by("piece")
    assert [[row.n_events for row in group.inputs.order_by("pk")] for group in groups] == [
        [300, 200],
        [250, 100],
    ]
    names = [next(iter(item.job.outputs)) for item in rig.panda.jobs.values()]
    assert "mDST-274495-3-8.a1.root.001" in names


def test_placeholder_dump_is_not_merged(rig):
    ended(rig, {274495: [300, 13]})
    dumps = MergeInput.objects.filter(group__product="dump")
    assert [row.size for row in dumps] == [300]


def test_run_of_placeholders_has_no_dump_and_still_gets_done(rig):
    merged(rig, {274495: [13]})
    for _ in range(3):
        rig.tick()
    assert not Step.objects.filter(kind="merge dump").exists()
    assert rig.task().status == "done"


def test_crosscheck_counts_the_files(rig):
    merged(rig, {274495: [300, 200]})
    rig.tick()
    counts = {
        count.unit: (count.in_chunks, count.in_merged, count.agrees) for count in GroupCheck.objects.all()
    }
    assert counts == {
        "events": (500, 500, True),
        "histogram entries": (500, 500, True),
        "bytes": (500, 500, True),
    }
    assert Run.objects.get().status == "checked"


def test_fewer_events_written_than_read_are_no_loss(rig):
    """A reconstruction does not write all that it reads: what is merged is compared with what was written."""
    rig.sent_task({274495: [300, 200]})
    for item, n in zip(rig.panda.jobs.values(), (280, 190), strict=True):
        rig.run_jobs(only=lambda other, item=item: other is item)
        item.n_written = n
        write_tree(next(Path(rig.root, rig.folder.name).rglob(next(iter(item.job.outputs)))), n)
    rig.tick()
    assert list(MergeInput.objects.filter(group__product="mdst").values_list("n_events", flat=True)) == [
        280,
        190,
    ]
    assert (
        next(job.job.n_events for job in rig.panda.jobs.values() if "mdst" in job.job.transformation) == 470
    )
    rig.run_jobs()
    rig.tick()
    count = GroupCheck.objects.get(unit="events")
    assert (count.expected, count.in_chunks, count.in_merged) == (470, 470, 470)
    assert Run.objects.get().status == "checked"


def test_event_lost_before_the_merge_makes_the_run_suspicious(rig):
    ended_files = "mDST-274495-11001-3-8.a1.root"
    rig.sent_task({274495: [300, 200]})
    rig.run_jobs()
    path = next(Path(rig.root, rig.folder.name).rglob(ended_files))
    write_tree(path, 299)
    rig.tick()
    rig.run_jobs()
    for _ in range(3):
        rig.tick()
    run = Run.objects.get()
    assert (run.status, run.reason) == ("suspicious", "counts-differ")
    assert "expected 500 events" in run.message
    assert "merged file 499" in run.message
    assert Transfer.objects.count() == 0
    assert files(rig, "mDST-274495-1*.root")
    assert rig.task().status == "running"


def test_missing_merged_file_is_looked_for_then_given_to_a_person(rig):
    merged(rig, {274495: [300]})
    next(Path(rig.root, rig.folder.name).rglob("mDST-274495-3-8.a1.root")).unlink()
    for _ in range(8):
        rig.tick(700)
    assert Run.objects.get().status == "suspicious"
    assert "is not there" in Step.objects.get(kind="cross-check").message


def test_transfers_are_confirmed_and_the_task_is_done(rig):
    merged(rig, {274495: [300, 200], 274496: [100]})
    for _ in range(3):
        rig.tick()
    rows = Transfer.objects.all()
    assert len(rows) == 6
    assert all(row.confirmed_at for row in rows)
    assert "generalprod/oracle_dst/t1/mDST/mDST-274495-3-8.root" in {row.target for row in rows}
    assert rig.task().status == "done"


def test_nothing_is_removed_before_archive_is_asked(rig):
    merged(rig, {274495: [300, 200]})
    for _ in range(5):
        rig.tick()
    assert len(files(rig, "mDST-274495-11*.root")) == 2


def test_archive_packs_logs_then_removes_intermediates(rig):
    merged(rig, {274495: [300, 200]})
    for _ in range(3):
        rig.tick()
    before = files(rig, "*.job.log.tgz")
    rig.set("archive")
    for _ in range(6):
        rig.tick()
    assert rig.task().status == "archived"
    assert Run.objects.get().status == "archived"
    assert len(before) == 5
    assert files(rig, "*.job.log.tgz") == []
    assert files(rig, "mDST-*") == ["mDST-274495-3-8.a1.root"]
    assert files(rig, "*.tar") == [f"prod{rig.folder.name}.274495.tar"]
    assert all(row.confirmed_at for row in Transfer.objects.all())


def test_files_that_a_dead_node_left_half_placed_are_removed_with_the_intermediates(rig):
    merged(rig, {274495: [300, 200]})
    for _ in range(3):
        rig.tick()
    panda_id = PandaAttempt.objects.order_by("pk").first().panda_id
    directory = next(Path(rig.root, rig.folder.name).rglob("mDST-274495-11*.root")).parent
    (directory / f".{panda_id}.1.abc123.0.part").write_bytes(b"half")
    (directory / ".999999.1.abc123.0.part").write_bytes(b"of another task")
    rig.set("archive")
    for _ in range(6):
        rig.tick()
    assert rig.task().status == "archived"
    assert [path.name for path in directory.iterdir()] == [".999999.1.abc123.0.part"]


def test_copy_that_differs_stops_the_archive(rig):
    merged(rig, {274495: [300]})
    rig.tick()
    rig.tick()
    row = Transfer.objects.get(target__contains="mDST/")
    Path(rig.config.sites[0].tape.root, row.target).write_bytes(b"short")
    for _ in range(3):
        rig.tick()
    step = Step.objects.get(transfer=row)
    assert (step.status, step.reason) == ("manual check is needed", "copy-differs")
    assert rig.task().status == "running"
    Path(rig.config.sites[0].tape.root, row.target).unlink()  # the tape replaces nothing
    resend = look_resend(rig.task(), "manual check is needed")
    assert resend.lines[0].startswith("run 274495 transfer mdst 0\t")
    assert resend.perform(as_manager("ann", rig.now)) == 1
    for _ in range(3):
        rig.tick()
    assert rig.task().status == "done"


def test_tape_that_was_away_for_long_is_tried_again_by_a_person(rig, monkeypatch):
    merged(rig, {274495: [300]})
    with monkeypatch.context() as away:
        away.setattr(local, "open_tape", lambda _: (_ for _ in ()).throw(OSError("tape is away")))
        for _ in range(9):
            rig.tick(600)
    given_up = Step.objects.filter(kind="transfer")
    assert {(step.status, step.reason) for step in given_up} == {("manual check is needed", "gave-up")}
    assert steps_resend(resend_candidates(rig.task(), "manual check is needed"), as_manager("ann", rig.now))
    assert {step.failures for step in given_up.all()} == {0}
    for _ in range(3):
        rig.tick()
    assert rig.task().status == "done"


def test_a_merge_that_failed_for_good_stands_below_its_run(rig, capsys):
    ended(rig, {274495: [300, 200]}, max_attempts=1)
    rig.run_jobs(
        "failed", lambda item: item.job.transformation == "merging mdst", codes={"pilotErrorCode": 1240}
    )
    rig.run_jobs()
    rig.tick()
    assert (
        verbs.task_rows(Namespace(name="t1", selector="run_rows", columns="run site status", json=False)) == 0
    )
    run, *steps = capsys.readouterr().out.splitlines()
    assert (run, len(steps)) == ("274495\tDEMO\tmerging", 1)
    assert steps[0].startswith("\tmerge mdst\tmdst\t0\tfailed\tpilotErrorCode:1240\t")
