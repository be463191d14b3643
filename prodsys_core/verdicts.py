"""What the end of a PanDA job means for its step. Pure; the codes are data (`data/codes.yaml`).

Success needs evidence: PanDA's record of exactly this attempt (name and attempt number compared), status finished,
and as many events read as the catalogue says; where a count is not known, a manager accepts it before the archive.
What the server does not know is held and asked again, never failed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic.dataclasses import dataclass as table

from prodsys_core.config import Retry
from prodsys_core.lifecycle import StepKind, StepStatus
from prodsys_core.ports import Description


@table(frozen=True, slots=True, config={"extra": "forbid"})
class CodeRule:
    """One line of the table. `charge`: own, site, infrastructure; `then`: retry, manual, stage again."""

    charge: str
    then: str
    text: str
    per_kind: Mapping[str, str] = field(default_factory=dict)


@table(frozen=True, slots=True, config={"extra": "forbid"})
class CodeTable:
    """All codes: field of the job record -> code -> rule, fields in the order in which they decide."""

    order: tuple[str, ...]
    codes: Mapping[str, Mapping[int, CodeRule]]
    unknown: CodeRule
    cancelled: CodeRule
    closed: CodeRule


@table(frozen=True, slots=True, config={"extra": "forbid"})
class PandaWords:
    """PanDA's statuses by what they mean for a step."""

    waiting: frozenset[str]
    running: frozenset[str]
    ended: frozenset[str]


@dataclass(frozen=True, slots=True)
class Expected:
    """What we know of the attempt whose end is judged. `n_events` None: not known."""

    kind: str
    job_name: str
    attempt_nr: int
    n_events: int | None
    charged: int
    uncharged: int
    max_attempts: int


@dataclass(frozen=True, slots=True)
class Held:
    """Nothing is concluded; ask again. `reason` is one word for machines, `text` one sentence for people."""

    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Seen:
    """The job is alive in PanDA; `running` once PanDA reported it so."""

    running: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """The attempt is over. `retry_in_s` None: no further attempt without a person. `diag`: the server's own words."""

    status: StepStatus
    charge: str
    reason: str
    text: str
    retry_in_s: float | None = None
    diag: str = ""

    @property
    def charged(self) -> bool:
        """Success counts as charged: the attempt ended by the job's own doing."""
        return self.charge == "own"


def judge_description(
    expected: Expected, seen: Description | None, table: CodeTable, words: PandaWords, rules: Retry
) -> Held | Seen | Ended:
    """Verdict on one attempt from PanDA's full record of it (None: the server's answer has no record)."""
    if seen is None:
        return Held("unknown-to-panda", "PanDA's answer holds no record of this job; asked again")
    if (seen.job_name, seen.attempt_nr) != (expected.job_name, expected.attempt_nr):
        return Held(
            "not-this-attempt",
            f"PanDA job {seen.panda_id} is {seen.job_name!a} attempt {seen.attempt_nr}, "
            f"expected {expected.job_name!a} attempt {expected.attempt_nr}",
        )
    if seen.status not in words.ended:
        return judge_status(seen.status, words)
    if seen.status == "finished":
        return _judge_finished(expected, seen)
    return _judge_failure(expected, seen, table, rules)


def judge_status(status: str, words: PandaWords) -> Held | Seen:
    """What the cheap status call tells. An end state there only says that the full record must be asked for."""
    if status in words.running:
        return Seen(running=True)
    if status in words.waiting:
        return Seen(running=False)
    return Held("ask-record", f"PanDA says {status[:40]!a}; its record decides")


UNCHECKED = "events-unchecked"
"""Reason of a finished step whose event counts nobody could compare; its run is archived once a manager accepts."""


def _judge_finished(expected: Expected, seen: Description) -> Ended:
    if expected.kind != StepKind.RECONSTRUCT:  # merges are counted from their files
        return Ended(StepStatus.FINISHED, "own", "finished", "")
    catalogue, read, written = expected.n_events, seen.n_events, seen.n_written
    text = f"events in the catalogue {catalogue}, read {read}, written {written}".replace("None", "unknown")
    others_read = None not in (catalogue, read) and read != catalogue
    if others_read or (read is not None and written is not None and written > read):
        return Ended(StepStatus.MANUAL_CHECK, "own", "events-differ", text)
    if None in (catalogue, read, written):
        return Ended(StepStatus.FINISHED, "own", UNCHECKED, text)
    return Ended(StepStatus.FINISHED, "own", "finished", "")


def _judge_failure(expected: Expected, seen: Description, table: CodeTable, rules: Retry) -> Ended:
    source, code, rule = pick_rule(seen, table)
    diag = seen.diags.get(source.removesuffix("Code") + "Diag", "")
    reason = f"{source}:{code}" if code else seen.status
    then = rule.per_kind.get(expected.kind, rule.then)
    if then == "manual":
        return Ended(StepStatus.MANUAL_CHECK, rule.charge, reason, rule.text, diag=diag)
    retry_in_s = _retry_in_s(expected, rule.charge, rules)
    return Ended(StepStatus.FAILED, rule.charge, reason, rule.text, retry_in_s, diag)


def pick_rule(seen: Description, table: CodeTable) -> tuple[str, int, CodeRule]:
    """(field, code, rule) that decides for a job that did not finish; field "" and code 0 where none is set."""
    for source in table.order:
        code = seen.codes.get(source, 0)
        rule = table.codes[source].get(code)
        if code and rule is not None:
            return source, code, rule
    if seen.status == "cancelled":
        return "", 0, table.cancelled
    if seen.status == "closed":
        return "", 0, table.closed
    source = next((source for source in table.order if seen.codes.get(source, 0)), "")
    return source, seen.codes.get(source, 0), table.unknown


def _retry_in_s(expected: Expected, charge: str, rules: Retry) -> float | None:
    if charge == "own":
        left = expected.charged + 1 < expected.max_attempts
        return rules.charged_wait_s if left else None
    if expected.uncharged + 1 > rules.uncharged_max:
        return None
    return rules.backoff_s[min(expected.uncharged, len(rules.backoff_s) - 1)]
