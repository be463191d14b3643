"""Packing a bundle that is over: the same is read from what is loose, packed, or cut off at any operation between."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.multijob.evidence import FileEvidence
from pilot.multijob.node.files import run_steps
from pilot.multijob.node.gate import Start, gate_steps
from pilot.multijob.operations import PutBytes, Size, perform
from pilot.multijob.pack import is_member, parse_pack, render_pack
from pilot.ports import GONE, BundleFiles, BundleId, ClaimMade, Done, EvidenceSeen, Refused, Unavailable

ID = BundleId("abcdefgh2")
MIB = 2**20
STAYS = {"claim.1", "claim.2", "closed", "door", "manifest.json", "mark.3.n7", "script.1.sh", "script.2.sh"}
KILLED = b"=>> PBS: job killed: walltime 600 exceeded limit 540\n"


def line(number: int, kind: str, **body: object) -> bytes:
    text = json.dumps({"n": number, "kind": kind, **body}).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def gate_claim(number: int) -> str:
    body = {"who": "gate", "round": number, "batch_id": f"{number}.sim", "host": "h", "pid": 1}
    return json.dumps({**body, "nonce": f"n{number}", "utc": "t"})


def make(root: Path) -> FileEvidence:
    return FileEvidence(root, 1, "edge", 1, "n", lambda: "t", look_again_s=0.0)


@pytest.fixture
def evidence(tmp_path: Path) -> FileEvidence:
    """A bundle of two nodes and two rounds that is over."""
    return ended(tmp_path)


def ended(root: Path) -> FileEvidence:
    root.mkdir(exist_ok=True)
    made = make(root)
    made.prepare(ID, lambda: BundleFiles(ID, "{}", {1: "", 2: ""}))
    directory = root / "bundles" / ID
    for number in (1, 2):
        (directory / f"claim.{number}").write_text(gate_claim(number))
    (directory / "mark.3.n7").write_text(gate_claim(3))
    made.set_door(ID, 2)
    made.close(ID)
    for name in ("turned-away.1", "launched.2", "again.2.n8", "launchers.out", "commands.json"):
        (directory / name).write_text("{}")
    (directory / "batch.2.out").write_bytes(KILLED)
    for node in (0, 1):
        lines = [line(n, "job_started", panda_id=node * 100 + n) for n in range(1, 20)]
        (directory / f"node.{node}.n{node}.journal").write_bytes(b"".join(lines))
    return made


def pack(evidence: FileEvidence, mib: int = 64, **offsets: int) -> Any:
    return evidence.pack(
        ID, {f"node.{name[1:]}.n{name[1:]}.journal": at for name, at in offsets.items()}, mib * MIB
    )


def names(root: Path) -> set[str]:
    return {path.name for path in (root / "bundles" / ID).iterdir()}


def packs(root: Path) -> list[Path]:
    return sorted((root / "bundles" / ID).glob("pack.*.zip"))


def seen(evidence: FileEvidence) -> tuple[EvidenceSeen, EvidenceSeen, Any]:
    """What is read from the beginning, what behind some bytes, and what an adoption finds."""
    whole = evidence.read(ID, {})
    later = evidence.read(ID, {"node.0.n0.journal": len(line(1, "job_started", panda_id=1))})
    assert isinstance(whole, EvidenceSeen) and isinstance(later, EvidenceSeen)
    return whole, later, evidence.adopt(ID)


def test_what_fencing_reads_stays_and_all_else_becomes_one_file(
    evidence: FileEvidence, tmp_path: Path
) -> None:
    before = seen(evidence)
    assert before[0].over_walltime == (2,) and len(before[0].lines) == 38
    assert pack(evidence) == Done()
    assert names(tmp_path) == STAYS | {packs(tmp_path)[0].name}
    assert seen(evidence) == before
    assert pack(evidence) == Done()
    assert len(packs(tmp_path)) == 1


class Killed(BaseException):
    """The daemon is killed."""


def killed_at(number: int, happens: bool) -> Callable[[Any], Any]:
    """Carry out operations until the `number`-th."""
    left = [number]

    def run(operation: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and not happens:
            if isinstance(operation, PutBytes):
                Path(operation.temp).write_bytes(operation.content[:10])
            raise Killed
        reply = perform(operation)
        if left[0] == 0:
            raise Killed
        return reply

    return run


@pytest.mark.parametrize("happens", [False, True])
def test_cut_off_at_any_operation_the_same_is_read_and_the_next_packing_goes_on(
    tmp_path: Path, happens: bool
) -> None:
    before = seen(ended(tmp_path / "reference"))
    for number in range(1, 200):
        root = tmp_path / str(number)
        evidence = ended(root)
        try:
            pack(replace(evidence, run=lambda steps, n=number: run_steps(steps, killed_at(n, happens))))
        except Killed:
            assert seen(evidence) == before, number
            assert pack(evidence) == Done()
        else:
            assert number > 20
            return
        assert seen(evidence) == before, number
        assert names(root) == STAYS | {path.name for path in packs(root)}
        assert len(packs(root)) == 1
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("number", range(1, 40))
def test_any_operation_may_fail_and_the_same_is_read(
    evidence: FileEvidence, tmp_path: Path, number: int
) -> None:
    before, left = seen(evidence), [number]

    def failing(operation: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(5, "Input/output error", "x")
        return perform(operation)

    outcome = pack(replace(evidence, run=lambda steps: run_steps(steps, failing)))
    assert isinstance(outcome, Unavailable) == (left[0] <= 0)
    assert seen(evidence) == before
    assert pack(evidence) == Done()
    assert (seen(evidence), len(packs(tmp_path))) == (before, 1)


def test_a_full_disk_leaves_everything_as_it_was(evidence: FileEvidence, tmp_path: Path) -> None:
    before = names(tmp_path)

    def full(operation: Any) -> Any:
        if isinstance(operation, PutBytes):
            raise OSError(28, "No space left on device", operation.path)
        return perform(operation)

    assert isinstance(pack(replace(evidence, run=lambda steps: run_steps(steps, full))), Unavailable)
    assert names(tmp_path) == before


def test_a_pack_that_does_not_hold_what_was_written_costs_no_file(
    evidence: FileEvidence, tmp_path: Path
) -> None:
    before = names(tmp_path)

    def lying(operation: Any) -> Any:
        if isinstance(operation, PutBytes):
            operation = operation._replace(content=render_pack({"launchers.out": b""}))
        return perform(operation)

    assert isinstance(pack(replace(evidence, run=lambda steps: run_steps(steps, lying))), Unavailable)
    assert before <= names(tmp_path)


def test_a_journal_that_grows_while_it_is_packed_stays(evidence: FileEvidence, tmp_path: Path) -> None:
    path = tmp_path / "bundles" / ID / "node.1.n1.journal"

    def growing(operation: Any) -> Any:
        if isinstance(operation, PutBytes):
            path.write_bytes(path.read_bytes() + line(20, "closed_seen"))
        return perform(operation)

    assert pack(replace(evidence, run=lambda steps: run_steps(steps, growing))) == Done()
    assert path.exists()
    assert seen(evidence)[0].lines[-1].kind == "closed_seen"
    # and the next packing takes it: the longer one counts
    assert pack(evidence) == Done()
    assert not path.exists()
    assert seen(evidence)[0].lines[-1].kind == "closed_seen"


@pytest.mark.parametrize(
    "content", [b"deadbeef {}\n" + line(1, "a"), line(1, "a") + b"half a li", line(1, "a") + b"\0" * 40]
)
def test_a_journal_that_cannot_be_read_whole_is_not_packed(
    evidence: FileEvidence, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "bundles" / ID / "node.1.n1.journal"
    path.write_bytes(content)
    before = seen(evidence)
    assert pack(evidence) == Done()
    assert path.read_bytes() == content
    assert seen(evidence) == before


def test_a_journal_that_shows_less_than_was_read_once_is_not_packed(
    evidence: FileEvidence, tmp_path: Path
) -> None:
    length = os.stat(tmp_path / "bundles" / ID / "node.1.n1.journal").st_size
    assert pack(evidence, n0=10, n1=length + 1) == Done()
    assert {name for name in names(tmp_path) if name.startswith("node.")} == {"node.1.n1.journal"}


def test_more_than_is_held_in_memory_stays_as_it_is(evidence: FileEvidence, tmp_path: Path) -> None:
    (tmp_path / "bundles" / ID / "launchers.out").write_bytes(b"x" * (2 * MIB))
    before = seen(evidence)
    assert pack(evidence, 1) == Done()
    assert names(tmp_path) == STAYS | {packs(tmp_path)[0].name, "launchers.out"}
    assert seen(evidence) == before


def test_a_damaged_pack_is_damage_and_nothing_is_unlinked_for_it(
    evidence: FileEvidence, tmp_path: Path
) -> None:
    assert pack(evidence) == Done()
    found = packs(tmp_path)[0]
    content = bytearray(found.read_bytes())
    content[41] ^= 255
    found.write_bytes(bytes(content))
    late = tmp_path / "bundles" / ID / "node.1.late.journal"
    late.write_bytes(line(1, "agent_started"))
    read = evidence.read(ID, {})
    assert isinstance(read, EvidenceSeen)
    assert [item.file for item in read.damaged] == [found.name]
    assert [item.kind for item in read.lines] == ["agent_started"]


def test_a_start_that_comes_after_the_packing_finds_who_owns_its_round(
    evidence: FileEvidence, tmp_path: Path
) -> None:
    assert pack(evidence) == Done()
    directory = str(tmp_path / "bundles" / ID)
    start = Start("9.sim", "nid1", 7, "n9", "t")
    again = run_steps(gate_steps(directory, 2, start, "link", 0.0), perform)
    assert not again.launch and "2.sim" in again.reason
    made = evidence.make_claim(ID, 2)
    assert isinstance(made, ClaimMade) and made.claim.batch_id == "2.sim"
    assert "again.2.n9" in names(tmp_path) and "closed" in names(tmp_path)
    read = evidence.read(ID, {})
    assert isinstance(read, EvidenceSeen) and read.closed and read.door == 2


def test_two_packers_at_once_lose_nothing(evidence: FileEvidence, tmp_path: Path) -> None:
    """One of an older epoch stands still before it unlinks; the other packs, and a later journal, too."""
    before = seen(evidence)
    done = []

    def standing(operation: Any) -> Any:
        if isinstance(operation, Size) and not done and packs(tmp_path):
            done.append(pack(evidence))
        return perform(operation)

    outcome = pack(replace(evidence, run=lambda steps: run_steps(steps, standing)))
    assert done == [Done()] and isinstance(outcome, Unavailable | Done)
    assert pack(evidence) == Done()
    assert seen(evidence) == before


def test_no_directory_is_a_refusal(evidence: FileEvidence) -> None:
    assert evidence.remove(ID) == Done()
    outcome = pack(evidence)
    assert isinstance(outcome, Refused) and outcome.code == GONE


NAMES = st.sampled_from(
    ["node.0.n0.journal", "node.7.x-y.journal", "launched.1", "batch.1.out", "launchers.out"]
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(NAMES, st.binary(max_size=300)), st.data())
def test_a_pack_is_read_as_it_was_made_or_not_at_all(members: dict[str, bytes], data: st.DataObject) -> None:
    content = render_pack(members)
    assert parse_pack(content) == members == parse_pack(render_pack(members))
    at = data.draw(st.integers(0, len(content) - 1))
    for damaged in (content[:at], content[:at] + b"\0" * (len(content) - at)):
        try:
            found = parse_pack(damaged)
        except ValueError:
            continue
        assert found == members


def test_a_pack_whose_directory_names_no_member_is_no_empty_pack() -> None:
    content = render_pack({"node.0.n0.journal": b"", "launched.1": b""})
    counts = content.rindex(b"PK\5\6") + 8
    with pytest.raises(ValueError, match="members"):
        parse_pack(content[:counts] + b"\0" * (len(content) - counts))


def test_nothing_that_fencing_reads_is_ever_a_member() -> None:
    assert not any(
        is_member(name) for name in (*STAYS, "claim.1.n", "credential", "../x", "a/node.0.n.journal")
    )
