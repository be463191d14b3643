"""Every captured pair of real PanDA servers: what our client reads, or why it never meets such an answer."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from samples import DIRECTORY, load

from pilot.panda import legacy, v1
from pilot.panda.transport import read_answer
from pilot.ports import Ack, Broken, Failure, Fetched, JobStatus, PandaId, Refused, ServerStatus, Update

# Answers of calls that this pilot does not make.
NOT_MET = {
    "getStatus": "asked by checkJobStatus",
    "get_job_status": "asked by job/get_status",
    "get_description": "a submitter's call",
    "getJobStatus": "a submitter's call, a pickle",
    "getFullJobStatus": "a submitter's call, a pickle",
    "killJobs": "a submitter's call, a pickle",
    "kill": "a submitter's call",
    "submit": "a submitter's call",
    "set_command": "an operator's call",
    "getResourceTypes": "not needed by a pilot of one kind of node",
    "update_worker_status": "Harvester's call",
}
NOBODY, ROLE_ITEM = "refused", "not stored: StatusCode 60"
UNTOLD, TOLD, GIVEN, KILLED = "not stored: no command", "stored", "stored, alreadydone", "stored, tobekilled"

# id -> what the client understands. A single update is read as one result of a bulk update (the server encodes both
# alike); several ids of one meaning stand in one row.
MEANING = {
    # legacy fetch: number of jobs
    "L02 L03 L04 L05 L08 L11 L21 L22 L29 L32 L98 L99": "1 job",
    "L06 L07": "5 jobs",
    "L33": "14 jobs",
    "L09 L10 L12 L16 L17 L18 L19 L20 L23 L96": "no jobs",
    "L24 L25 L26 L97": NOBODY,
    "L27 L28 L30": "refused",
    "L13 L14 L15 L31": "unavailable",
    # legacy updates
    "L40 L41 L42 L44 L46 L49 L62 L67 L68 L69": TOLD,
    "L48": GIVEN,
    "L51 L52 L53 L54 L65 L66": KILLED,
    "L55 L56": UNTOLD,
    "L57 L58": "unavailable",
    "L59 L60 L61": ROLE_ITEM,
    "L80": "3 x stored",
    "L81": "2 x stored",
    "L82": "stored; stored, tobekilled; not stored: no command",
    "L83 L85 L86": "unavailable",
    "L87": "0 x stored",
    "L88": NOBODY,
    "L89": "3 x stored",
    # legacy questions
    "L01": "alive",
    "L93": "finished, sent, unknown (tobekilled)",
    # v1 fetch
    "N10 N11 N13 N14 N27": "1 job",
    "N39": "2 jobs",
    "N12": "5 jobs",
    "N40": "14 jobs",
    "N15 N16 N20 N21 N22": "no jobs",
    "N17 N18 N19 N23 N24 N25 N26 N29 N30 N31 N34 N35": NOBODY,
    "N32 N33 N36 N37 N38": "refused",
    "N28": "unavailable",
    # v1 updates
    "N50 N51 N52 N60 N78 N95 N96 N98": TOLD,
    "N62": GIVEN,
    "N64 N65 N66 N75 N76": KILLED,
    "N67 N68 N69 N70 N71 N72 N73": "not stored",
    "N80": "3 x stored",
    "N81": "stored; stored, tobekilled; not stored; not stored; not stored",
    "N82": NOBODY,
    "N84": "0 x stored",
    "N85 N86": NOBODY,
    "N87": "3 x stored",
    # v1 questions
    "N01": "broken",
    "N02 N04": "alive",
    "N03": "refused",
    "N89": "finished, sent, unknown (tobekilled)",
}
BY_ID = {name: meaning for names, meaning in MEANING.items() for name in names.split()}
ALL = sorted(path.stem.partition("_")[0] for path in DIRECTORY.glob("*.txt"))


def method_of(name: str) -> str:
    return load(name).path.partition("?")[0].rpartition("/")[2]


def test_every_pair_is_read_or_never_met() -> None:
    missing = [name for name in ALL if name not in BY_ID and method_of(name) not in NOT_MET]
    assert missing == []
    assert set(BY_ID) <= set(ALL)
    assert len(ALL) == 171


def request_items(name: str) -> int:
    """Items of a bulk request; 0 where its body is no list."""
    (path,) = DIRECTORY.glob(f"{name}_*.txt")
    return len(json.loads(answer_items)) if (answer_items := _items(path.read_text())) else 0


def _items(text: str) -> str:
    body = text.partition("<<< RESPONSE")[2].partition("\n\n")[2].strip()
    value = json.loads(body)
    items = value[1] if isinstance(value, list) else value.get("data")
    return json.dumps(items) if isinstance(items, list) else ""


def updates(count: int) -> list[Update]:
    return [Update(PandaId(n), 1, JobStatus.RUNNING, "Q") for n in range(1, count + 1)]


def read(name: str) -> object:
    sample = load(name)
    text = read_answer(sample.path, sample.status, sample.body)
    if not isinstance(text, str):
        return text
    old = sample.path.startswith("/server/")
    method, module = method_of(name), legacy if old else v1
    ids = [PandaId(n) for n in range(3)]
    match method:
        case "getJob" | "acquire_jobs":
            return module.parse_fetch(text, "Q")
        case "updateJob":
            return legacy.parse_item(updates(1)[0], text)
        case "update_job":
            return v1.parse_item(updates(1)[0], json.loads(text))
        case "updateJobsInBulk" | "update_jobs_bulk":
            return module.parse_bulk(text, updates(request_items(name)))
        case "checkJobStatus":
            return legacy.parse_check(text, ids)
        case "get_status":
            return v1.parse_status(text, ids)
        case "isAlive":
            return "alive" if text.strip() == "alive=yes" else Broken(text)
        case "is_alive":
            envelope = v1.parse_envelope(text)
            return envelope if isinstance(envelope, Broken) else "alive" if envelope["success"] else envelope
    raise AssertionError(method)


def of_ack(ack: Ack) -> str:
    if ack.accepted:
        return TOLD + (f", {ack.command}" if ack.command else "")
    reason = ack.reason.partition(" in the answer")[0]
    return f"not stored: {reason}" if reason.startswith(("StatusCode", "no command")) else "not stored"


def of_status(item: ServerStatus) -> str:
    return item.status + (f" ({item.command})" if item.command else "")


def meaning(value: object) -> str:
    match value:
        case Fetched(jobs, malformed):
            assert malformed == ()
            return "no jobs" if not jobs else f"{len(jobs)} job" + ("s" if len(jobs) > 1 else "")
        case Ack():
            return of_ack(value)
        case tuple() if value and isinstance(value[0], ServerStatus):
            return ", ".join(of_status(item) for item in value)
        case tuple():
            words = [of_ack(ack) for ack in value]
            return f"{len(words)} x stored" if set(words) <= {TOLD} else "; ".join(words)
        case Refused():
            return "refused"
        case str():
            return value
    assert isinstance(value, Failure)
    return type(value).__name__.lower()


@pytest.mark.parametrize(("name", "expected"), BY_ID.items(), ids=BY_ID)
def test_a_captured_pair_is_read_as_the_server_meant_it(name: str, expected: str) -> None:
    assert meaning(read(name)) == expected
