"""Exit codes of Torque's commands: what each one tells us, with the reason. Data only.

Torque's commands exit with the number of the server's error modulo 256 (15001 -> 153); docs/facts of Torque 6.1.3,
all texts captured from it stand in tests/data/torque-fixtures. A code that is in no table is `Broken`.

A code is `UNAVAILABLE` where the command cannot know what the server did or will do: asking again is right.
It is `REFUSED` only where the server (or the command, before it asked the server) said a definite no.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Verdict(StrEnum):
    """What an exit code tells about the request."""

    UNAVAILABLE = "unavailable"
    REFUSED = "refused"
    BROKEN = "broken"


Exits = Mapping[int, tuple[Verdict, str]]

# For every command.
ANY: Exits = {
    16: (Verdict.UNAVAILABLE, "no connection could be established"),
    29: (Verdict.UNAVAILABLE, "no connection to the batch server"),
    30: (Verdict.UNAVAILABLE, "the server says that it is too busy"),
    31: (Verdict.UNAVAILABLE, "trqauthd has no connection of this client: said to be transient"),
    32: (Verdict.UNAVAILABLE, "the server's host name cannot be resolved"),
    33: (Verdict.UNAVAILABLE, "trqauthd is not there"),
    104: (Verdict.UNAVAILABLE, "connection reset"),
    110: (Verdict.UNAVAILABLE, "connection timed out"),
    111: (Verdict.UNAVAILABLE, "connection refused: the server is down"),
    113: (Verdict.UNAVAILABLE, "no route to the server's host"),
    126: (Verdict.UNAVAILABLE, "a wrapper found the command not executable"),
    127: (Verdict.UNAVAILABLE, "a wrapper did not find the command"),
    160: (Verdict.UNAVAILABLE, "trqauthd did not find the calling process"),
    161: (Verdict.UNAVAILABLE, "munge is missing: nobody can be authenticated"),
    162: (Verdict.UNAVAILABLE, "host not known or not allowed"),
    164: (Verdict.UNAVAILABLE, "the server had a system error"),
    165: (Verdict.UNAVAILABLE, "the server had an internal error"),
    173: (Verdict.UNAVAILABLE, "the credential was not taken"),
    174: (Verdict.UNAVAILABLE, "the credential has expired"),
    185: (Verdict.UNAVAILABLE, "protocol error on the way"),
    187: (Verdict.UNAVAILABLE, "the server has no free connection"),
    188: (Verdict.UNAVAILABLE, "no server is known to the command"),
    198: (Verdict.UNAVAILABLE, "a resource is temporarily not there"),
    210: (Verdict.UNAVAILABLE, "protocol error on the way"),
    214: (Verdict.UNAVAILABLE, "the server is shutting down"),
    237: (Verdict.UNAVAILABLE, "the server timed out"),
    243: (Verdict.UNAVAILABLE, "the server is out of memory"),
    247: (Verdict.UNAVAILABLE, "socket error"),
    248: (Verdict.UNAVAILABLE, "socket error"),
    249: (Verdict.UNAVAILABLE, "socket error while writing: the request may have arrived"),
    250: (Verdict.UNAVAILABLE, "socket error while reading: the request may have been carried out"),
    251: (Verdict.UNAVAILABLE, "the connection was closed before the answer"),
    255: (Verdict.UNAVAILABLE, "the queue is not available for now"),
}

SUBMIT: Exits = {
    1: (Verdict.REFUSED, "qsub did not ask the server: script not readable, root, or a local error"),
    2: (Verdict.REFUSED, "qsub does not take these options or directives"),
    27: (Verdict.REFUSED, "syntax of a resource"),
    55: (Verdict.REFUSED, "resources conflict with the queue's defaults"),
    61: (Verdict.REFUSED, "below a minimum limit"),
    159: (Verdict.REFUSED, "not allowed (access list of the queue)"),
    168: (Verdict.REFUSED, "illegal value of an attribute or resource"),
    172: (Verdict.REFUSED, "no such queue"),
    175: (Verdict.REFUSED, "the queue is not enabled"),
    176: (Verdict.REFUSED, "no access to the queue"),
    177: (Verdict.REFUSED, "this user may not run jobs"),
    183: (Verdict.REFUSED, "the server does not support this"),
    186: (Verdict.REFUSED, "bad list of attributes"),
    189: (Verdict.REFUSED, "no such resource"),
    190: (Verdict.REFUSED, "over the queue's limits, or no such nodes"),
    191: (Verdict.REFUSED, "no queue given and no default queue"),
    193: (Verdict.REFUSED, "rejected by all destinations"),
    196: (Verdict.REFUSED, "the script cannot be accessed"),
    199: (Verdict.REFUSED, "this group may not run jobs"),
    200: (Verdict.REFUSED, "the queue is full"),
    202: (Verdict.REFUSED, "over a resource limit"),
    203: (Verdict.REFUSED, "no such account"),
    208: (Verdict.REFUSED, "no such dependency"),
    222: (Verdict.REFUSED, "values exclude each other"),
    226: (Verdict.REFUSED, "wrong type of job for the queue"),
    228: (Verdict.REFUSED, "too many jobs of this user in the queue"),
    231: (Verdict.REFUSED, "the queue takes no batch jobs"),
    233: (Verdict.REFUSED, "the queue takes no jobs that are not rerunnable"),
    235: (Verdict.REFUSED, "bad array request"),
    239: (Verdict.REFUSED, "the queue takes no fault tolerant jobs"),
    240: (Verdict.REFUSED, "the queue takes no fault intolerant jobs"),
    241: (Verdict.REFUSED, "the queue takes no arrays"),
}

LIST: Exits = {
    1: (Verdict.UNAVAILABLE, "qstat had a local error"),
    2: (Verdict.BROKEN, "qstat does not take these options: another kind of qstat?"),
    172: (Verdict.BROKEN, "qstat took the id for a queue"),
}

CANCEL: Exits = {
    1: (Verdict.BROKEN, "qdel takes this for no job id"),
    2: (Verdict.BROKEN, "qdel does not take these options: another kind of qdel?"),
    159: (Verdict.REFUSED, "not allowed: another user's job?"),
    224: (Verdict.REFUSED, "the node's daemon does not answer: the batch job stays as it is"),
}

HOLES: Exits = {
    1: (Verdict.UNAVAILABLE, "showbf had an error"),
}
