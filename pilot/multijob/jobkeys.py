"""Which job a number means: a PandaID is one of its server only. Pure.

One daemon serves the queues of several servers, and each server counts its jobs from 1. Inside, a job is known by its
key: the number of its server in the high bits, its PandaID in the low ones. One small integer, for there are 150,000;
the first server's keys are its PandaIDs. What leaves the daemon (journal, manifests, reports) names server and PandaID.
"""

from __future__ import annotations

from pilot.ports import PANDA_ID_MAX, JobKey, PandaId

_BITS = PANDA_ID_MAX.bit_length()
# Jobs of journals that did not name the server of a job: it is that of their queue.
UNNAMED = ""


def make_key(number: int, panda_id: PandaId) -> JobKey:
    """The key of a job of server number `number`."""
    if not 0 <= panda_id <= PANDA_ID_MAX:
        raise ValueError(f"PandaID {panda_id} is out of range")
    # Of the first server the very number: one object, not two.
    return JobKey(number << _BITS | panda_id if number else panda_id)


def panda_id_of(key: JobKey) -> PandaId:
    """The PandaID by which its server knows the job."""
    return PandaId(key & PANDA_ID_MAX if key > PANDA_ID_MAX else key)


def number_of(key: JobKey) -> int:
    """The number of its server."""
    return key >> _BITS
