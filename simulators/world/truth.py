"""What really happened, written down by the world's own nodes, never taken from our journals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

# A job: its server and the PandaID that it has there.
Who = tuple[str, int]


@dataclass(slots=True)
class PayloadRun:
    """One payload that was spawned. `ended_by` None: by itself. `end_line_s`: when its end line was durable.

    `good`: what it plays is a success. `server`: whose job it is.
    """

    panda_id: int
    attempt_nr: int
    bundle_id: str
    round: int
    batch_id: str
    node: str
    start_s: float
    end_s: float | None = None
    ended_by: str | None = None
    end_line_s: float | None = None
    good: bool = True
    server: str = ""

    @property
    def who(self) -> Who:
        """The job."""
        return self.server, self.panda_id


@dataclass(slots=True)
class GateRun:
    """One start of the gate. `launch` None: it has not decided, or was ended before it did.

    `owner`: (batch id, nonce) in the claim when it had decided, None if no gate's claim is there.
    """

    bundle_id: str
    round: int
    batch_id: str
    nonce: str
    start_s: float
    launch: bool | None = None
    reason: str = ""
    owner: tuple[str, str] | None = None


@dataclass(slots=True)
class Truth:
    """The world's own log. `submissions`: (time, name, batch id) of every qsub of a daemon.

    `closed_while_live`: (time, bundle, batch id) of each `closed` written while the claim's batch job lived.
    `outlived`: payloads that ran, with an agent that does not hang, when their bundle was taken for settled.
    `lines`: (time, job, batch id) of each start line that an agent wrote: what was spawned has one before it.
    `ended`: (time, job) of each job that a commands file tells its node to end.
    `servers`: the one whose jobs are in a bundle, as its manifest was written.
    `denied`: when the batch system's answers left a batch job out, or said that it is unknown, though it was there.
    """

    payloads: list[PayloadRun] = field(default_factory=list)
    gates: list[GateRun] = field(default_factory=list)
    submissions: list[tuple[float, str, str]] = field(default_factory=list)
    closed_while_live: list[tuple[float, str, str]] = field(default_factory=list)
    outlived: list[tuple[float, PayloadRun]] = field(default_factory=list)
    lines: list[tuple[float, Who, str]] = field(default_factory=list)
    ended: list[tuple[float, Who]] = field(default_factory=list)
    denied: dict[str, list[float]] = field(default_factory=dict)
    servers: dict[str, str] = field(default_factory=dict)

    def deny(self, true: Iterable[str], shown: Iterable[str], at_s: float) -> None:
        """A listing was bent, given as the ids in it: remember which batch jobs it denied."""
        for batch_id in sorted(set(true) - set(shown)):
            self.denied.setdefault(batch_id, []).append(at_s)

    def living(self, bundle_id: str) -> list[PayloadRun]:
        """Payloads of a bundle that run now."""
        return [run for run in self.payloads if run.bundle_id == bundle_id and run.end_s is None]

    def may_live(self, batch_id: str) -> bool:
        """Whether the batch system's answers left any doubt that it is over: two that deny it leave none."""
        return len(self.denied.get(batch_id, ())) < 2
