"""Every step of the model by name, with what it stands for in production.

`events` and `actions` are the classes of `pilot/multijob/{events,actions}.py`, `operations` those of
`pilot/multijob/node/{files,steps}.py`, `files` the names of docs/architecture/files.md. A test holds that all of them
exist and that every event and action is here or in `ELSEWHERE` with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pilot.multijob import actions, events
from pilot.multijob.node import files, steps


class Step(NamedTuple):
    """A kind of step. `text` tells it in a story; `{}` is its detail.

    `fault`: it uses up one of the faults. `helps`: nobody has to be lucky for it (L may rely on it).
    """

    name: str
    text: str
    events: tuple[type, ...] = ()
    actions: tuple[type, ...] = ()
    operations: tuple[type, ...] = ()
    files: tuple[str, ...] = ()
    fault: bool = False
    helps: bool = True


STEPS: dict[str, Step] = {}


def _step(name: str, text: str, **stands_for: object) -> Step:
    step = Step(name, text, **stands_for)  # type: ignore[arg-type]
    STEPS[name] = step
    return step


def _fault(name: str, text: str, **stands_for: object) -> Step:
    return _step(name, "FAULT: " + text, fault=True, helps=False, **stands_for)


E = events
A = actions

# --- pilot ---------------------------------------------------------------------------------------------------------
INTEND = _step(
    "intend",
    "pilot {} records Intent({}) and commits it",
    events=(E.RoundIntended,),
    actions=(A.AppendEvents, A.AddScript),
)
DECIDE = _step("decide", "pilot {} decides and commits what it knows: {}", actions=(A.AppendEvents,))
COMMIT = _step("commit", "pilot {} commits what it has recorded", actions=(A.AppendEvents,))
READ_LEASE = _step("read-lease", "pilot {} reads the lease", actions=(A.AppendEvents,), files=("lease",))
SUBMIT = _step("submit", "pilot {} runs qsub for round {}", actions=(A.SubmitBatchJob,))
ACCEPTED = _step("accepted", "pilot {} gets the batch id from qsub", events=(E.BatchJobAccepted,))
REFUSED = _fault("refused", "qsub says no to pilot {}", events=(E.SubmitRefused,))
MAKE_CLAIM = _step(
    "make-claim",
    "pilot {} makes the claim by link(2): {}",
    events=(E.RoundWon, E.ClaimSeen),
    actions=(A.MakeClaim,),
    files=("claim.<k>",),
)
CLAIM_UNREADABLE = _fault(
    "claim-unreadable",
    "pilot {} finds the claim and cannot read it",
    events=(E.ClaimSeen,),
    files=("claim.<k>",),
)
PILOT_MARK = _step(
    "pilot-mark", "pilot {} writes its mark and waits", actions=(A.MakeMark,), files=("mark.<k>.<nonce>",)
)
PILOT_LOOK = _step(
    "pilot-look",
    "pilot {} looks at all marks: {}",
    events=(E.RoundWon, E.ClaimSeen),
    actions=(A.MakeClaim,),
    files=("mark.<k>.<nonce>",),
)
SET_DOOR = _step(
    "set-door", "pilot {} sets the door to {}", events=(E.RoundVoided,), actions=(A.SetDoor,), files=("door",)
)
CANCEL_JOB = _step("cancel-job", "pilot {} runs qdel for {}", actions=(A.CancelBatchJob,))
CLOSE = _step(
    "close", "pilot {} writes `closed`", events=(E.BundleClosed,), actions=(A.WriteClosed,), files=("closed",)
)
REPORT = _step("report", "pilot {} acts on its verdict: {}", actions=(A.ReportJobs,))
READ_CLAIM = _step(
    "read-claim",
    "pilot {} reads the claim: {}",
    events=(E.ClaimSeen, E.RoundWon),
    actions=(A.ReadEvidence,),
    files=("claim.<k>",),
)
READ_END = _step(
    "read-end",
    "pilot {} reads the end line: finished",
    events=(E.JobStarted, E.JobJudged, E.JournalConsumed),
    actions=(A.ReadEvidence,),
    files=("node.<index>.<nonce>.journal",),
)
LAST_READ = _step(
    "last-read",
    "pilot {} reads everything once more: {}",
    events=(E.JobStarted, E.JobJudged, E.JobReturned, E.BundleSettled),
    actions=(A.ReadEvidence,),
    files=("node.<index>.<nonce>.journal",),
)
LIST = _step(
    "list",
    "pilot {} lists the batch jobs: {}",
    events=(E.BatchJobEnded, E.BatchJobAccepted),
    actions=(A.ListBatchJobs,),
)
MISSED = _fault(
    "missed",
    "a complete listing of pilot {} misses a live batch job",
    events=(E.BatchJobEnded,),
    actions=(A.ListBatchJobs,),
)
TAKE_LEASE = _step("take-lease", "pilot 2 takes the lease", files=("lease",))
REPLAY = _step("replay", "pilot 2 replays the journal of pilot 1")

# --- gate ----------------------------------------------------------------------------------------------------------
LINK = _step(
    "link",
    "gate {} links claim.{}: {}",
    operations=(
        files.PutNew,
        files.Link,
        files.CountLinks,
        files.Read,
        files.SyncDirectory,
        files.Unlink,
        files.Put,
    ),
    files=("claim.<k>", "claim.<k>.<nonce>", "again.<k>.<nonce>"),
)
REPLY_LOST = _fault(
    "reply-lost",
    "the reply to the link of gate {} is lost",
    operations=(files.PutNew, files.Link),
    files=("claim.<k>",),
)
READ_NONCE = _step(
    "read-nonce",
    "gate {} reads the claim: {}",
    operations=(files.CountLinks, files.Read, files.SyncDirectory, files.Unlink),
)
NONCE_UNREADABLE = _fault(
    "nonce-unreadable", "gate {} cannot read the claim and exits", operations=(files.Read, files.Pause)
)
READ_DOOR = _step(
    "read-door",
    "gate {} reads the door: {}",
    operations=(files.Exists, files.Read, files.Put),
    files=("door", "turned-away.<k>"),
)
GATE_MARK = _step(
    "gate-mark",
    "gate {} writes its mark",
    operations=(files.PutNew, files.SyncDirectory),
    files=("mark.<k>.<nonce>",),
)
GATE_LOOK = _step(
    "gate-look",
    "gate {} has waited and looks at the marks: {}",
    operations=(files.Pause, files.Names, files.Put),
)
LAUNCH = _step(
    "launch",
    "gate {} writes launched.{} and starts its agent",
    operations=(files.Put,),
    files=("launched.<k>",),
)

# --- agent ---------------------------------------------------------------------------------------------------------
START_LINE = _step(
    "start-line",
    "agent {} writes its start line",
    operations=(steps.Line,),
    files=("node.<index>.<nonce>.journal",),
)
LOOK = _step("look", "agent {} looks for `closed`: {}", operations=(files.Exists,), files=("closed",))
SPAWN = _step("spawn", "agent {} spawns the payload", operations=(steps.RunPayload,))
POLL_LOOK = _step(
    "poll", "agent {} looks while its payload runs: {}", operations=(files.Exists,), files=("closed",)
)
PAYLOAD_ENDS = _step("payload-ends", "the payload of agent {} ends well", operations=(steps.RunPayload,))
KILL_PAYLOAD = _step("kill-payload", "agent {} ends its payload and stops", operations=(steps.Line,))
LOOK_TO_PLACE = _step(
    "look-to-place",
    "agent {} looks before it places: {}",
    operations=(steps.Collect, files.Exists),
    files=("closed",),
)
PLACE = _step("place", "agent {} places the output: {}", operations=(files.CopyNew, files.Link))
END_LINE = _step(
    "end-line",
    "agent {} writes its end line",
    operations=(steps.Line,),
    files=("node.<index>.<nonce>.journal",),
)

# --- batch system, people, time ------------------------------------------------------------------------------------
ACCEPT = _step("accept", "the batch system accepts {}")
VANISH = _step("vanish", "the submission of {} never arrives")
START = _step("start", "{} starts")
END = _step("end", "{} ends")
ELSEWHERE_RUN = _step(
    "elsewhere", "the job runs in another bundle and its output is accepted", events=(E.BundlePlanned,)
)
TICK = _step("tick", "a tick passes")
CANCEL = _fault("cancel", "a person cancels the bundle (pilot {})", events=(E.BundleCancelled,))
ANSWER_LOST = _fault("answer-lost", "pilot {} gets no answer from qsub", actions=(A.SubmitBatchJob,))
DOUBLED = _fault("doubled", "the script of round {} is submitted once more")
REQUEUED = _fault("requeued", "{} is requeued, its processes {}")
KILLED = _fault("killed", "{} is ended early, its processes {}")
HANG = _fault("hang", "{} hangs")
THAW = _step("thaw", "{} goes on", helps=False)
CRASH = _fault("crash", "pilot 1 crashes")
STOP = _fault("stop", "pilot 1 is stopped (SIGSTOP)")
CONTINUE = _step("continue", "pilot 1 goes on", helps=False)

FAULTS = tuple(step.name for step in STEPS.values() if step.fault)

# Events and actions of production that no step stands for, and why.
NOT_MODELLED: Mapping[str, str] = {
    "JobFetched": "the job is in the bundle from the start",
    "BundlePrepared": "the directory is in place from the start",
    "BundleRetired": "after everything that this model follows",
    "JobGivenBack": "an agent's word about jobs it will not start; the verdict is that of the last reading",
    "NodeJournalDamaged": "lines are whole or not there; the virtual world tears them",
    "NodeFailed": "which node is probed first decides nothing about a round; unit tests",
    "KillOrdered": "an order of the server, no part of the submission protocol",
    "JobOrphaned": "an order of the server, no part of the submission protocol",
    "JobKept": "what the server answers to the report",
    "JobBound": "a further PandaID of the same work; the model follows one job",
    "JobUnbound": "a further PandaID of the same work; the model follows one job",
    "JobRecalled": "the server hands out a job again; judged by evidence that is there already",
    "BundleAdopted": "a journal that lost its end belongs to the virtual world",
    "JobFoundOver": "what the server says of a job before it enters a bundle",
    "FindBundles": "a journal that lost its end belongs to the virtual world",
    "AdoptBundle": "a journal that lost its end belongs to the virtual world; its claim(1) is a pilot's that gives up",
    "LinkOutputs": "a second name for outputs that are placed and judged",
    "FinalAccepted": "what the server answers to the report",
    "FetchJobs": "the job is in the bundle from the start",
    "AskStatus": "orders of the server",
    "PrepareBundle": "the directory is in place from the start",
    "WriteCommands": "orders of the server",
    "LookAtAllocation": "tells a person",
    "TakeSnapshot": "shortens a start",
    "LookAtSpace": "a reason to make no bundle",
    "LookAtInputs": "before the job enters a bundle",
    "LookAtCredential": "credentials have no part in who owns a round",
    "DeliverCredential": "credentials have no part in who owns a round",
    "WithdrawCredential": "credentials have no part in who owns a round",
    "PackBundle": "what fencing reads stays as it is; after everything that this model follows",
    "RemoveBundle": "after everything that this model follows",
    "PauseOrdered": "a person's order about new bundles, before anything that this model follows",
    "DrainOrdered": "a person's order about new bundles, before anything that this model follows",
    "QueueResumed": "a person's order about new bundles, before anything that this model follows",
    "TaskStopped": "which jobs enter a bundle, before anything that this model follows",
    "TaskResumed": "which jobs enter a bundle, before anything that this model follows",
    "AnswerCommand": "tells a person, changes nothing",
}
