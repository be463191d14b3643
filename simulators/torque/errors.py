"""Torque's error numbers and texts, as the commands print them (torque_error_codes.tsv of the captured cases)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Pbse(IntEnum):
    """Numbers of the errors that the simulator gives; the exit code of a command is the number modulo 256."""

    UNKJOBID = 15001
    PERM = 15007
    UNKSIG = 15015
    BADATVAL = 15016
    BADSTATE = 15018
    UNKQUE = 15020
    QUNOENB = 15023
    UNKRESC = 15037
    EXCQRESC = 15038
    NORERUN = 15040
    MAXQUED = 15048
    BADDEPEND = 15056
    NORELYMOM = 15072
    MAXUSERQUED = 15076
    BAD_ARRAY_REQ = 15083
    INVALID_SYNTAX = 15131


TEXTS: dict[Pbse, str] = {
    Pbse.UNKJOBID: "Unknown Job Id Error",
    Pbse.PERM: "Unauthorized Request ",
    Pbse.UNKSIG: "Unknown/illegal signal name",
    Pbse.BADATVAL: "Illegal attribute or resource value for",
    Pbse.BADSTATE: "Request invalid for state of job",
    Pbse.UNKQUE: "Unknown queue",
    Pbse.QUNOENB: "Queue is not enabled",
    Pbse.UNKRESC: "Unknown resource type ",
    Pbse.EXCQRESC: "Job exceeds queue resource limits",
    Pbse.NORERUN: "job is not rerunnable",
    Pbse.MAXQUED: "Maximum number of jobs already in queue",
    Pbse.BADDEPEND: "Invalid Job Dependency",
    Pbse.BAD_ARRAY_REQ: "Bad Job Array Request",
    Pbse.NORELYMOM: "Server could not connect to MOM",
    Pbse.MAXUSERQUED: "Maximum number of jobs already in queue for user",
    Pbse.INVALID_SYNTAX: "Command syntax invalid",
}


@dataclass(frozen=True, slots=True)
class TorqueError:
    """A definite no of the server. `message` follows `MSG=`; `attribute` follows the text directly."""

    number: Pbse
    message: str = ""
    attribute: str = ""

    @property
    def exit_code(self) -> int:
        """What a command exits with."""
        return self.number % 256

    @property
    def text(self) -> str:
        """What a command prints between its name and the job id."""
        words = TEXTS[self.number]
        if self.attribute:
            return f"{words} {self.attribute}"
        return f"{words} MSG={self.message}" if self.message else words
