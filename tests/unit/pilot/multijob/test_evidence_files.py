"""Evidence on real files: one maker per round, nothing half-built in place, damage is reported."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilot.multijob.evidence import FileEvidence
from pilot.multijob.node.files import Link, Names, PutNew, Rename, SyncDirectory, run_steps
from pilot.multijob.node.gate import Start, render_claim
from pilot.multijob.operations import RemoveTree, perform
from pilot.ports import (
    UNFIT,
    AlreadyThere,
    BundleFiles,
    BundleId,
    ClaimMade,
    Damage,
    DirectorySeen,
    Done,
    EvidenceSeen,
    Refused,
    Unavailable,
)

ID = BundleId("abcdefgh2")
NAME = "node.0.n1.journal"


def make(root: Path, epoch: int = 1, nonce: str = "n") -> FileEvidence:
    return FileEvidence(root, epoch, "edge", 1, nonce, lambda: "t", look_again_s=0.0)


@pytest.fixture
def evidence(tmp_path: Path) -> FileEvidence:
    made = make(tmp_path)
    assert made.prepare(ID, lambda: BundleFiles(ID, "{}", {1: "#!/bin/sh\n"})) == Done()
    return made


def line(kind: str, **body: object) -> bytes:
    text = json.dumps({"n": 1, "kind": kind, **body}).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def read(evidence: FileEvidence, **offsets: int) -> EvidenceSeen:
    seen = evidence.read(ID, {NAME: offsets.get("at", 0)})
    assert isinstance(seen, EvidenceSeen)
    return seen


def test_a_bundle_is_in_place_whole_and_only_once(evidence: FileEvidence, tmp_path: Path) -> None:
    assert sorted(path.name for path in (tmp_path / "bundles" / ID).iterdir()) == [
        "manifest.json",
        "script.1.sh",
    ]
    assert evidence.prepare(ID, lambda: BundleFiles(ID, "other", {})) == AlreadyThere()
    assert (tmp_path / "bundles" / ID / "manifest.json").read_text() == "{}"
    assert list((tmp_path / "making.1").iterdir()) == []


def test_what_is_in_place_is_not_rendered_again(evidence: FileEvidence) -> None:
    def render() -> BundleFiles:
        raise AssertionError("by another configuration")

    assert evidence.prepare(ID, render) == AlreadyThere()


def test_of_a_bundle_that_cannot_be_rendered_nothing_is_made(tmp_path: Path) -> None:
    no = Refused(UNFIT, "job 1: no such kind")
    assert make(tmp_path).prepare(ID, lambda: no) == no
    assert [path.name for path in tmp_path.rglob(ID)] == []


def test_of_many_makers_exactly_one_wins_a_round(evidence: FileEvidence, tmp_path: Path) -> None:
    wins: list[bool] = []

    def gate(number: int) -> None:
        private = tmp_path / "bundles" / ID / f"claim.1.{number}"
        private.write_text("{}")
        try:
            private.with_name("claim.1").hardlink_to(private)
            wins.append(True)
        except FileExistsError:
            wins.append(False)

    threads = [threading.Thread(target=gate, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    made = evidence.make_claim(ID, 1)
    for thread in threads:
        thread.join()
    assert isinstance(made, ClaimMade)
    assert sum(wins) + made.won == 1


def test_a_claim_made_before_a_crash_or_by_an_earlier_epoch_is_won(
    evidence: FileEvidence, tmp_path: Path
) -> None:
    assert evidence.make_claim(ID, 1).won  # type: ignore[union-attr]
    again = make(tmp_path, 2, "other").make_claim(ID, 1)
    assert isinstance(again, ClaimMade)
    assert again.won


def test_a_gates_claim_is_lost_and_names_its_batch_job(evidence: FileEvidence, tmp_path: Path) -> None:
    body = {"who": "gate", "round": 1, "batch_id": "7.sim", "host": "h", "pid": 1, "nonce": "x", "utc": "t"}
    (tmp_path / "bundles" / ID / "claim.1").write_text(json.dumps(body))
    made = evidence.make_claim(ID, 1)
    assert isinstance(made, ClaimMade)
    assert (made.won, made.claim.batch_id) == (False, "7.sim")
    assert read(evidence).claims[1].who == "gate"


def test_an_unreadable_claim_is_the_claim_of_an_unknown_batch_job(
    evidence: FileEvidence, tmp_path: Path
) -> None:
    (tmp_path / "bundles" / ID / "claim.1").write_text("{")
    made = evidence.make_claim(ID, 1)
    assert isinstance(made, ClaimMade)
    assert (made.won, made.claim.who, made.claim.batch_id) == (False, "unreadable", None)


def test_the_door_never_goes_back(evidence: FileEvidence) -> None:
    evidence.set_door(ID, 3)
    evidence.set_door(ID, 2)
    assert read(evidence).door == 3


def test_a_line_being_written_is_not_looked_at(evidence: FileEvidence, tmp_path: Path) -> None:
    path = tmp_path / "bundles" / ID / NAME
    path.write_bytes(line("agent_started") + line("heartbeat")[:-5])
    seen = read(evidence)
    assert [item.kind for item in seen.lines] == ["agent_started"]
    assert not seen.damaged
    path.write_bytes(line("agent_started") + line("heartbeat"))
    assert [item.kind for item in read(evidence, at=seen.lines[-1].end).lines] == ["heartbeat"]


def test_a_damaged_line_is_reported_and_what_follows_is_read(evidence: FileEvidence, tmp_path: Path) -> None:
    hole = b"\0" * 30 + b"\n"
    (tmp_path / "bundles" / ID / NAME).write_bytes(line("a") + hole + line("b"))
    seen = read(evidence)
    assert [item.kind for item in seen.lines] == ["a", "b"]
    assert len(seen.damaged) == 1


def test_a_damaged_last_line_may_still_be_on_its_way(evidence: FileEvidence, tmp_path: Path) -> None:
    (tmp_path / "bundles" / ID / NAME).write_bytes(line("a") + b"\0" * 30 + b"\n")
    seen = read(evidence)
    assert [item.kind for item in seen.lines] == ["a"]
    assert not seen.damaged


def test_a_directory_that_is_not_there_is_unavailable_not_empty(tmp_path: Path) -> None:
    assert isinstance(make(tmp_path).read(ID, {}), Unavailable)


@pytest.mark.parametrize("name", ["../../etc", "abc", "ABCDEFGHI", "abcdefgh1", "abcdefgh2/x"])
def test_only_bundle_ids_become_paths(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a bundle id"):
        make(tmp_path).remove(BundleId(name))


def test_remove_takes_the_whole_directory_and_may_be_asked_again(
    evidence: FileEvidence, tmp_path: Path
) -> None:
    assert evidence.remove(ID) == Done()
    assert evidence.remove(ID) == Done()
    assert not (tmp_path / "bundles" / ID).exists()


def test_what_an_older_daemon_still_builds_never_gets_into_place(tmp_path: Path) -> None:
    (tmp_path / "making.1" / ID).mkdir(parents=True)
    make(tmp_path, 2).put_older_makings_away()
    assert not (tmp_path / "making.1").exists()


def test_a_claim_that_becomes_readable_while_it_is_looked_at_is_read(
    evidence: FileEvidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bundles" / ID / "claim.1"
    path.write_text("")
    body = {"who": "gate", "round": 1, "batch_id": "7.sim", "host": "h", "pid": 1, "nonce": "x", "utc": "t"}
    monkeypatch.setattr(time, "sleep", lambda seconds: path.write_text(json.dumps(body)))
    made = evidence.make_claim(ID, 1)
    assert isinstance(made, ClaimMade)
    assert (made.won, made.claim.batch_id) == (False, "7.sim")


@pytest.mark.parametrize(
    "text",
    [
        "x" * 70_000,
        "[" * 20_000,
        '{"who": "gate", "round": 1, "batch_id": null, "host": "", "pid": 1, "nonce": "", "utc": ""}',
    ],
)
def test_a_strange_claim_does_not_hide_the_other_evidence(
    evidence: FileEvidence, tmp_path: Path, text: str
) -> None:
    (tmp_path / "bundles" / ID / "claim.1").write_text(text)
    (tmp_path / "bundles" / ID / NAME).write_bytes(line("a"))
    seen = read(evidence)
    assert seen.claims[1].who == "unreadable"
    assert [item.kind for item in seen.lines] == ["a"]


def test_a_daemon_whose_makings_were_put_away_puts_nothing_into_place_any_more(tmp_path: Path) -> None:
    older = make(tmp_path)
    older.put_older_makings_away()
    make(tmp_path, 2).put_older_makings_away()
    assert isinstance(older.prepare(ID, lambda: BundleFiles(ID, "{}", {})), Unavailable)
    assert not (tmp_path / "bundles" / ID).exists()


def test_one_reading_reads_to_the_end(
    evidence: FileEvidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilot.multijob.evidence.READ_MAX_BYTES", 100)
    content = b"".join(line("a") for _ in range(20)) + b"\0" * 250 + b"\n" + line("b") + line("c")[:-3]
    (tmp_path / "bundles" / ID / NAME).write_bytes(content)
    seen = read(evidence)
    assert [item.kind for item in seen.lines] == ["a"] * 20 + ["b"]
    assert seen.damaged


def test_the_rest_of_a_removal_that_a_crash_cut_off_is_removed_by_the_next_epoch(
    evidence: FileEvidence, tmp_path: Path
) -> None:
    cut_off(evidence, RemoveTree).remove(ID)
    assert [path.name for path in tmp_path.rglob(ID)] == [ID]
    assert make(tmp_path, 2).remove(ID) == Done()
    assert [path.name for path in tmp_path.rglob(ID)] == []


def cut_off(evidence: FileEvidence, kind: type) -> FileEvidence:
    """The daemon is killed before its first operation of this kind."""

    def run(steps: Any) -> Any:
        try:
            operation = next(steps)
            while not isinstance(operation, kind):
                operation = steps.send(perform(operation))
        except StopIteration as stop:
            return stop.value
        return None

    return replace(evidence, run=run)


@pytest.mark.parametrize("kind", [PutNew, SyncDirectory, Rename])
def test_a_daemon_killed_at_any_operation_leaves_nothing_half_built_in_place(
    tmp_path: Path, kind: type
) -> None:
    files = BundleFiles(ID, "{}", {1: ""})
    cut_off(make(tmp_path), kind).prepare(ID, lambda: files)
    assert not (tmp_path / "bundles" / ID).exists()
    assert make(tmp_path).prepare(ID, lambda: files) == Done()
    assert sorted(path.name for path in (tmp_path / "bundles" / ID).iterdir()) == [
        "manifest.json",
        "script.1.sh",
    ]


def test_a_claim_whose_links_reply_was_lost_is_won(evidence: FileEvidence, tmp_path: Path) -> None:
    def lossy(operation: Any) -> Any:
        reply = perform(operation)
        if isinstance(operation, Link):
            raise FileExistsError(17, "File exists", operation.target)
        return reply

    made = replace(evidence, run=lambda steps: run_steps(steps, lossy)).make_claim(ID, 1)
    assert isinstance(made, ClaimMade)
    assert (made.won, made.claim.nonce) == (True, "n")


def test_a_journal_that_was_read_before_is_read_where_the_listing_leaves_it_out(
    evidence: FileEvidence, tmp_path: Path
) -> None:
    path = tmp_path / "bundles" / ID / NAME
    path.write_bytes(line("a"))
    at = read(evidence).lines[-1].end
    path.write_bytes(line("a") + line("b"))

    def unlisted(operation: Any) -> Any:
        reply = perform(operation)
        return [name for name in reply if name != NAME] if isinstance(operation, Names) else reply

    blind = replace(evidence, run=lambda steps: run_steps(steps, unlisted))
    assert [item.kind for item in read(blind, at=at).lines] == ["b"]
    path.unlink()
    assert read(blind, at=at).damaged == (Damage(NAME, at, "was there and is gone"),)


def test_a_failed_replacement_leaves_the_old_content_and_no_temp_file(
    evidence: FileEvidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence.set_door(ID, 1)
    before = sorted((tmp_path / "bundles" / ID).iterdir())

    def full(fd: int, content: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    assert evidence.set_door(ID, 2) == Unavailable("No space left on device (None)")
    assert read(evidence).door == 1
    assert sorted((tmp_path / "bundles" / ID).iterdir()) == before


def test_content_is_durable_before_its_name_is_there(
    evidence: FileEvidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (told.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(os, "rename", lambda a, b: (told.append("rename"), rename(a, b))[1])
    evidence.close(ID)
    assert told == ["fsync", "rename", "fsync"]


def test_the_walltimes_line_is_found_at_the_end_of_a_real_output(
    evidence: FileEvidence, tmp_path: Path
) -> None:
    fixtures = Path(__file__).parents[3] / "data/torque-fixtures/torque-6.1.3"
    said = (fixtures / "211_walltime_exceeded_output.stdout").read_bytes()
    outputs = {1: b"x" * 10_000 + said, 2: said + b"y" * 10_000, 3: b"", 4: b"*** DUE TO TIME LIMIT ***\n"}
    for number, content in outputs.items():
        (tmp_path / "bundles" / ID / f"batch.{number}.out").write_bytes(content)
    assert read(evidence).over_walltime == ()
    assert evidence.close(ID) == Done()
    assert read(evidence).over_walltime == (1, 4)


def test_marks_of_batch_jobs_are_read_together_and_the_pilots_says_that_there_are_none(
    evidence: FileEvidence, tmp_path: Path
) -> None:
    directory = tmp_path / "bundles" / ID
    assert isinstance(evidence.make_claim(ID, 1, weak=True), Unavailable)
    assert evidence.make_mark(ID, 1) == Done() == evidence.make_mark(ID, 1)
    assert evidence.make_claim(ID, 1, weak=True).won  # type: ignore[union-attr]
    seen = evidence.read(ID, {})
    assert isinstance(seen, EvidenceSeen)
    assert seen.claims[1].who == "pilot"
    for name, batch_id in (("n1", "7.t"), ("n2", "8.t"), ("n3", "7.t")):
        text = render_claim(1, Start(batch_id, "host", 1, name, "utc"))
        (directory / f"mark.1.{name}").write_text(text)
    seen = evidence.read(ID, {})
    assert isinstance(seen, EvidenceSeen)
    assert seen.claims[1].named == ("7.t", "8.t")
    assert not evidence.make_claim(ID, 1, weak=True).won  # type: ignore[union-attr]
    (directory / "mark.1.n4").write_text("{")
    assert evidence.read(ID, {}).claims[1].who == "unreadable"  # type: ignore[union-attr]


def test_an_unknown_directory_with_weak_fencing_is_adopted_with_a_mark(
    evidence: FileEvidence, tmp_path: Path
) -> None:
    (tmp_path / "bundles" / ID / "manifest.json").write_text('{"fencing": "weak"}')
    found = evidence.adopt(ID)
    assert isinstance(found, DirectorySeen)
    names = {path.name for path in (tmp_path / "bundles" / ID).iterdir()}
    assert "mark.1.pilot" in names
