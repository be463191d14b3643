"""Exit codes of `python -m simulators.payload`, one per cause."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes. 0 is the only success; a signal or an unforeseen error (1, with traceback) has none of these."""

    OK = 0
    USAGE = 2
    INPUT_MISSING = 10
    RAW_DAMAGED = 11
    NO_DATABASE = 12
    CALIBRATION_MISSING = 13
    INPUT_DAMAGED = 14
    OUTPUT_FAILED = 15
    TRACE_FAILED = 16


REASONS: dict[Exit, str] = {
    Exit.OK: "everything was written; stdout of a job ends with `End of Job`",
    Exit.USAGE: "wrong arguments, environment or input list; nothing was written",
    Exit.INPUT_MISSING: "an input file or the input list cannot be opened",
    Exit.RAW_DAMAGED: "the raw file is truncated, damaged or not a raw file",
    Exit.NO_DATABASE: "stderr says `can't connect to CDB database`: none is named, none answers, or it went away",
    Exit.CALIBRATION_MISSING: "stderr says `calibration missing for` or `calibration unreadable for` a key and run",
    Exit.INPUT_DAMAGED: "an input of a merge is incomplete, unreadable or unlike the others",
    Exit.OUTPUT_FAILED: "an output cannot be written (directory, space, rights)",
    Exit.TRACE_FAILED: "the trace of this run cannot be written: without its start line the payload does not run",
}


class PayloadError(Exception):
    """What ends a payload: one line for stderr and the exit code of its cause."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
