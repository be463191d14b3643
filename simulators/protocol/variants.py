"""The protocol as it is written, and each wrong variant of it, as differences of single steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simulators.protocol.state import ABSENCES, SETTLE, VISIBLE


@dataclass(frozen=True, slots=True)
class Rules:
    """What the steps ask for. The defaults are DESIGN section 3."""

    weak: bool = False
    # gate
    claim_overwrites: bool = False
    own_nonce_is_lost: bool = False
    marks: bool = True
    marks_by_batch_id: bool = False
    rerunnable: bool = False
    # agent
    look_before_start: bool = True
    line_before_look: bool = True
    look_while_running: bool = True
    look_before_placing: bool = True
    placement_overwrites: bool = False
    # pilot
    round_reused: bool = False
    claim_before_closing: bool = True
    absences: int = ABSENCES
    claim_at_cancel: bool = True
    settle: int = SETTLE
    lease_after_commit: bool = True
    pilots_claim_is_won: bool = True
    absences_before_the_claim: bool = False
    unreadable_is_the_accepted: bool = False
    # what S1 asks for, not what anybody does
    hung_is_excused: bool = True


@dataclass(frozen=True, slots=True)
class Variant:
    """A wrong variant: what it changes, the property it breaks, and the faults that are enough for it.

    `kinds`: the only kinds of fault tried, empty for all. `listed`: named in DESIGN section 3.
    """

    rules: Rules
    breaks: str
    what: str
    faults: int = 1
    kinds: tuple[str, ...] = ()
    listed: bool = True


REAL = Rules()
WEAK = Rules(weak=True)

VARIANTS: Mapping[str, Variant] = {
    "claim-by-overwrite": Variant(
        Rules(claim_overwrites=True), "S3", "the gate renames its file over claim.k instead of linking it"
    ),
    "own-nonce-is-lost": Variant(
        Rules(own_nonce_is_lost=True), "W2", "EEXIST is taken for lost without reading the nonce in the claim"
    ),
    "round-reused": Variant(
        Rules(round_reused=True),
        "S3",
        "after Void(k) the number k is used again: claim.k is removed and the door goes back",
    ),
    "closing-without-claim": Variant(
        Rules(claim_before_closing=False),
        "W1",
        "the accepted batch job has ended: closed, whoever owns the claim",
    ),
    "closing-after-one-absence": Variant(
        Rules(absences=1), "W1", "one complete listing without the batch job counts as its end"
    ),
    "cancel-without-claim": Variant(
        Rules(claim_at_cancel=False), "S3", "a cancelled round is void after qdel, without its claim"
    ),
    "verdict-before-settle": Variant(
        Rules(settle=0), "S4", "the last reading follows `closed` at once", faults=0
    ),
    "no-look-before-start": Variant(
        Rules(look_before_start=False), "S4", "the agent spawns after its start line without a look"
    ),
    "look-before-line": Variant(
        Rules(line_before_look=False), "S4", "the agent looks for `closed`, then writes its start line"
    ),
    "no-look-while-running": Variant(
        Rules(look_while_running=False),
        "S1",
        "nobody looks for `closed` while a payload runs",
    ),
    "settle-of-one-visible": Variant(Rules(settle=VISIBLE), "S1", "settle_s is visible_s"),
    "lease-before-commit": Variant(
        Rules(lease_after_commit=False),
        "S1",
        "the lease is read before the commit is durable, not after it",
        faults=2,
        kinds=("stop", "cancel"),
    ),
    "giving-up-only-with-no-claim": Variant(
        Rules(pilots_claim_is_won=False),
        "L",
        "a pilot's claim that is found is no reason to give up",
        faults=2,
        kinds=("crash", "refused"),
    ),
    "weak-no-mark": Variant(
        Rules(weak=True, marks=False),
        "S1",
        "link(2) is trusted where it is not exclusive: everybody wins",
        kinds=("doubled",),
    ),
    "weak-rerunnable": Variant(
        Rules(weak=True, rerunnable=True, marks_by_batch_id=True),
        "S1",
        "batch jobs are rerunnable, and a start takes the marks of its own batch job for its own",
    ),
    "placement-overwrites": Variant(
        Rules(placement_overwrites=True, look_before_start=False, look_before_placing=False),
        "S2",
        "outputs are renamed into place, by an agent that looks neither before it starts nor before it places",
        listed=False,
    ),
    "absences-before-the-claim": Variant(
        Rules(absences_before_the_claim=True),
        "W1",
        "absences from before the reading of the claim count for closing",
        listed=False,
    ),
    "unreadable-is-the-accepted": Variant(
        Rules(unreadable_is_the_accepted=True),
        "W1",
        "a claim that cannot be read is taken for that of the batch jobs known so far",
        faults=2,
        kinds=("doubled", "claim-unreadable"),
        listed=False,
    ),
    "settle-too-short": Variant(
        Rules(settle=SETTLE - VISIBLE),
        "S1",
        "settle_s lacks one visible_s: the last line may not be seen yet",
        faults=2,
        kinds=("killed", "answer-lost"),
        listed=False,
    ),
    "hung-payloads-count": Variant(
        Rules(hung_is_excused=False),
        "S1",
        "no flaw, but more than is promised: not even a payload of a process that hung runs beside the next run",
        listed=False,
    ),
}
