"""The explicit-state model of DESIGN section 3: clean as written, and every wrong variant is found by its property."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest

from pilot.multijob import listing
from pilot.multijob.actions import Action
from pilot.multijob.events import Event
from pilot.multijob.model import ProtocolTimes
from pilot.multijob.node.files import (
    Copied,
    CopyNew,
    CountLinks,
    Exists,
    Link,
    Names,
    Pause,
    Put,
    PutNew,
    Read,
    SyncDirectory,
    Unlink,
    run_steps,
)
from pilot.multijob.node.gate import Start, gate_steps, render_claim
from pilot.multijob.node.manifest import Place
from pilot.multijob.node.steps import (
    Collect,
    Collected,
    Line,
    PayloadEnd,
    RunPayload,
    job_steps,
    placement_steps,
)
from simulators.cli import main
from simulators.protocol import state as model
from simulators.protocol import steps as S
from simulators.protocol.search import Bounds, Found, search
from simulators.protocol.steps import FAULTS, NOT_MODELLED, STEPS, Step
from simulators.protocol.variants import REAL, VARIANTS, WEAK, Rules

ALL = frozenset(FAULTS)
PAGE = (Path(__file__).parents[2] / "docs/architecture/protocol-model.md").read_text("utf-8")
FILES_PAGE = (Path(__file__).parents[2] / "docs/architecture/files.md").read_text("utf-8")


@cache
def run(rules: Rules, faults: int, kinds: frozenset[str] = ALL) -> Found:
    """One search; the same one is made once."""
    return search(rules, Bounds(faults, kinds))


def holds(found: Found, *, named: bool = True) -> None:
    """Every state was seen and nothing is broken. `named`: the page gives the size of this run."""
    assert found.violation is None, "\n".join((found.violation.broken, *found.violation.story))
    assert found.whole
    assert not named or f"| {found.states:,} | {found.steps:,} | {found.depth} |" in PAGE


# --- the protocol as it is written -------------------------------------------------------------------------------


def test_all_properties_hold_with_any_one_fault() -> None:
    holds(run(REAL, 1))


def test_all_properties_hold_with_weak_fencing_and_any_one_fault() -> None:
    holds(run(WEAK, 1))


def test_all_properties_hold_with_any_two_faults_of_one_daemon_at_a_time() -> None:
    holds(run(REAL, 2, ALL - {"stop"}))


def test_all_properties_hold_while_an_older_daemon_goes_on() -> None:
    holds(run(REAL, 2, frozenset({"stop", "cancel"})))


def test_all_properties_hold_with_weak_fencing_and_two_faults() -> None:
    holds(run(WEAK, 2, frozenset({"crash", "doubled"})))


@pytest.mark.long
@pytest.mark.parametrize(
    "rules, faults, kinds",
    [
        pytest.param(REAL, 2, ALL, id="link-pairs"),
        pytest.param(REAL, 3, ALL - {"stop"}, id="link-triples-without-stop"),
        pytest.param(
            REAL, 3, frozenset({"stop", "cancel", "refused", "missed"}), id="link-triples-with-stop"
        ),
        pytest.param(WEAK, 2, ALL - {"stop"}, id="weak-pairs-without-stop"),
        pytest.param(WEAK, 2, frozenset({"stop", "cancel", "hang"}), id="weak-pairs-with-stop"),
    ],
)
def test_all_properties_hold_in_large_runs(rules: Rules, faults: int, kinds: frozenset[str]) -> None:
    # Not cached: millions of states are let go of after each.
    holds(search(rules, Bounds(faults, kinds)))


def test_every_step_of_the_model_occurs() -> None:
    strange = frozenset({"doubled", "claim-unreadable", "reply-lost", "nonce-unreadable"})
    taken = run(REAL, 1).taken | run(WEAK, 0).taken | run(REAL, 2, strange).taken
    assert sorted(set(STEPS) - taken) == []


# --- wrong variants ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_a_wrong_variant_breaks_its_property(name: str) -> None:
    variant = VARIANTS[name]
    kinds = frozenset(variant.kinds) or ALL
    found = search(variant.rules, Bounds(variant.faults, kinds), (variant.breaks,))
    assert found.violation is not None
    assert found.violation.broken == variant.breaks


def test_every_variant_of_the_design_is_there() -> None:
    listed = {name: variant.breaks for name, variant in VARIANTS.items() if variant.listed}
    assert listed == {
        "claim-by-overwrite": "S3",
        "own-nonce-is-lost": "W2",
        "round-reused": "S3",
        "closing-without-claim": "W1",
        "closing-after-one-absence": "W1",
        "cancel-without-claim": "S3",
        "verdict-before-settle": "S4",
        "no-look-before-start": "S4",
        "look-before-line": "S4",
        "no-look-while-running": "S1",
        "settle-of-one-visible": "S1",
        "lease-before-commit": "S1",
        "giving-up-only-with-no-claim": "L",
        "weak-rerunnable": "S1",
        "weak-no-mark": "S1",
    }


def test_rerunnable_batch_jobs_alone_do_no_harm_where_marks_carry_a_nonce() -> None:
    holds(run(Rules(weak=True, rerunnable=True), 1, frozenset({"requeued", "hang"})), named=False)


def test_placement_by_link_alone_keeps_an_accepted_output() -> None:
    careless = Rules(look_before_start=False, look_before_placing=False)
    assert search(careless, Bounds(1), ("S2",)).violation is None


def test_one_tick_of_settling_less_is_within_the_resolution_and_two_are_not() -> None:
    holds(run(Rules(settle=model.SETTLE - 1), 1), named=False)
    kinds = frozenset({"killed", "answer-lost"})
    assert search(Rules(settle=model.SETTLE - 2), Bounds(2, kinds), ("S1",)).violation is not None


def test_a_counterexample_is_a_story() -> None:
    found = search(VARIANTS["own-nonce-is-lost"].rules, Bounds(1), ("W2",))
    assert found.violation is not None
    assert found.violation.story == (
        "pilot 1 records Intent(1) and commits it",
        "pilot 1 reads the lease",
        "pilot 1 runs qsub for round 1",
        "the batch system accepts batch job A",
        "batch job A starts",
        "FAULT: the reply to the link of gate A is lost",
        "gate A reads the claim: lost",
    )


# --- its steps are the code's ------------------------------------------------------------------------------------


def test_every_event_and_action_is_a_step_or_has_a_reason() -> None:
    production = {item.__name__ for item in (*get_args(Event), *get_args(Action))}
    modelled = {item.__name__ for step in STEPS.values() for item in (*step.events, *step.actions)}
    assert modelled <= production
    assert modelled & set(NOT_MODELLED) == set()
    assert modelled | set(NOT_MODELLED) == production


def test_the_files_of_the_model_are_those_of_the_bundle_directory() -> None:
    names = {name for step in STEPS.values() for name in step.files}
    for name in names - {"lease"}:
        assert f"| `{name}` |" in FILES_PAGE, name
    for name in (
        "claim.<k>",
        "door",
        "closed",
        "launched.<k>",
        "mark.<k>.<nonce>",
        "node.<index>.<nonce>.journal",
    ):
        assert name in names


def test_its_bounds_are_those_of_the_product() -> None:
    times = ProtocolTimes(model.VISIBLE, model.POLL, model.KILL, grace_s=0, margin_s=0)
    assert model.SETTLE == times.settle_s
    assert model.ABSENCES == listing.ABSENCES


WHO = Start("7.t", "host", 1, "n1", "utc")
OTHERS = render_claim(1, WHO._replace(nonce="n2"))


def performed(steps: Any, replies: dict[type, Any]) -> tuple[list[type], Any]:
    """Types of the operations that production code yields, given these replies, and its result."""
    seen: list[type] = []

    def perform(operation: Any) -> Any:
        seen.append(type(operation))
        reply = replies.get(type(operation))
        if callable(reply):
            reply = reply(operation)
        if isinstance(reply, Exception):
            raise reply
        return reply

    return seen, run_steps(steps, perform)


Walk = tuple[tuple[Step, tuple[type, ...]], ...]


def follows(seen: list[type], path: Walk) -> None:
    """The operations are exactly those of the path, and each belongs to its step of the model."""
    for step, taken in path:
        assert set(taken) <= set(step.operations), step.name
    assert seen == [operation for _, taken in path for operation in taken]


MADE = (PutNew, Link, CountLinks, SyncDirectory, Unlink)


@pytest.mark.parametrize(
    "fencing, replies, launches, path",
    [
        pytest.param(
            "link",
            {CountLinks: 2, Exists: False},
            True,
            ((S.LINK, MADE), (S.READ_DOOR, (Exists,)), (S.LAUNCH, (Put,))),
            id="won",
        ),
        pytest.param(
            "link",
            {Link: FileExistsError(), CountLinks: 1, Read: OTHERS},
            False,
            ((S.LINK, (PutNew, Link, CountLinks, Read, Unlink, Put)),),
            id="lost",
        ),
        pytest.param(
            "link",
            {Link: FileExistsError(), CountLinks: 1, Read: render_claim(1, WHO), Exists: False},
            True,
            (
                (S.REPLY_LOST, (PutNew, Link)),
                (S.READ_NONCE, (CountLinks, Read, SyncDirectory, Unlink)),
                (S.READ_DOOR, (Exists,)),
                (S.LAUNCH, (Put,)),
            ),
            id="reply-lost",
        ),
        pytest.param(
            "link",
            {CountLinks: 2, Exists: True, Read: '{"round": 2}'},
            False,
            ((S.LINK, MADE), (S.READ_DOOR, (Exists, Read, Put))),
            id="turned-away",
        ),
        pytest.param(
            "weak",
            {Names: []},
            True,
            ((S.GATE_MARK, (PutNew, SyncDirectory)), (S.GATE_LOOK, (Pause, Names)), (S.LAUNCH, (Put,))),
            id="weak-won",
        ),
        pytest.param(
            "weak",
            {Names: ["mark.1.pilot"]},
            False,
            ((S.GATE_MARK, (PutNew, SyncDirectory)), (S.GATE_LOOK, (Pause, Names, Put))),
            id="weak-lost",
        ),
    ],
)
def test_a_gate_takes_the_steps_of_the_model(
    fencing: str, replies: dict[type, Any], launches: bool, path: Walk
) -> None:
    seen, outcome = performed(gate_steps("d", 1, WHO, fencing, 1.0), replies)
    assert outcome.launch is launches
    follows(seen, path)


def test_an_agent_takes_the_steps_of_the_model() -> None:
    job: Any = type("AJob", (), {"panda_id": 1, "attempt_nr": 1, "inputs": (), "steps": ()})()
    end = PayloadEnd(0, None, None, 1.0, 1.0, 1.0, "", "")
    collected = Collected(None, (), None, None, (), "")
    not_closed = {Exists: lambda operation: operation.path.endswith("manifest.json")}
    seen, result = performed(job_steps("d", job, 0), {**not_closed, RunPayload: end, Collect: collected})
    assert result.facts is not None
    started: Walk = ((S.START_LINE, (Line,)), (S.LOOK, (Exists, Exists)), (S.SPAWN, (RunPayload,)))
    follows(seen, (*started, (S.LOOK_TO_PLACE, (Collect,)), (S.END_LINE, (Line,))))
    seen, result = performed(job_steps("d", job, 0), {Exists: True})
    assert result.closed
    follows(seen, ((S.START_LINE, (Line,)), (S.LOOK, (Exists,))))


def test_outputs_are_placed_by_the_steps_of_the_model() -> None:
    place = Place("lfn", "out/lfn")
    replies = {
        CopyNew: Copied(1, "00000001"),
        Exists: lambda operation: operation.path.endswith("manifest.json"),
    }
    seen, entry = performed(placement_steps("d", "source", 1, place, "temp"), replies)
    assert entry["placed"]
    look = (S.LOOK_TO_PLACE, (Exists, Exists))
    tidy = (Unlink, SyncDirectory)
    assert (seen[0], tuple(seen[-2:])) == (Unlink, tidy)
    assert seen[1:-2] == [CopyNew, *look[1], Link]
    assert set(look[1]) <= set(look[0].operations)
    assert set(S.PLACE.operations) == {CopyNew, Link}


# --- the command and the page ------------------------------------------------------------------------------------


def test_the_command_is_clean_on_the_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "--faults", "0"]) == 0
    said = capsys.readouterr().out
    assert "144 states" in said and "nothing is broken" in said


def test_the_command_tells_the_story_of_a_variant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "--variant", "closing-without-claim"]) == 1
    said = capsys.readouterr().out
    assert "W1 is broken" in said and "FAULT: the script of round 1 is submitted once more" in said


def test_the_command_lists_the_variants(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "--list-variants"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(VARIANTS)


@pytest.mark.parametrize(
    "words",
    [["--variant", "none-such"], ["--faults", "-1"], ["--without", "rain"]],
    ids=lambda words: words[0],
)
def test_wrong_usage_of_the_command_is_2(words: list[str]) -> None:
    assert main(["model", *words]) == 2


def test_the_page_names_every_variant_property_and_fault() -> None:
    for name, variant in VARIANTS.items():
        assert f"| `{name}` | {variant.breaks} |" in PAGE
    for name in FAULTS:
        assert f"`{name}`" in PAGE
