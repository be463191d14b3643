"""After a payload: read what it printed, pack its log, place its files. Runs beside the agent's loop, in a thread."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import tarfile
import time
from typing import Any, Dict, List, NamedTuple, Optional

from pilot.multijob.node.files import perform, run_steps
from pilot.multijob.node.journal import escape
from pilot.multijob.node.manifest import Job, Place
from pilot.multijob.node.payload import STDERR, STDOUT, Streams
from pilot.multijob.node.scan import TAIL_CHARACTERS, Findings, PayloadScan
from pilot.multijob.node.steps import Collected, PayloadEnd, declared, not_placed, placement_steps

READ_BYTES = 1024 * 1024


class Request(NamedTuple):
    """What is to be collected. `nonce` of the agent's start keeps temp names of two agents apart."""

    directory: str
    job: Job
    work: str
    streams: Streams
    end: PayloadEnd
    place_outputs: bool
    place_log: bool
    nonce: str


def collect(request: Request) -> Collected:
    """All facts of one ended payload; its streams are closed and its work directory is removed. Raises nothing."""
    findings = Findings(None, (), None, None, "")
    files: List[Dict[str, Any]] = []
    trouble = ""
    try:
        findings = _scan(request)
        for index, place in enumerate(request.job.outputs):
            files.append(_output(request, index, place))
        if request.job.log is not None:
            files.append(_log(request, len(request.job.outputs), request.job.log, findings))
    except Exception as error:  # the top of a thread: this job's facts stay incomplete, its slot comes free
        trouble = "cannot be collected: %r" % (error,)
        files.extend(not_placed(place, None, trouble) for place in declared(request.job)[len(files) :])
    finally:
        os.close(request.streams.stdout)
        os.close(request.streams.stderr)
        shutil.rmtree(request.work, ignore_errors=True)
    tail = findings.stderr_tail
    if request.end.note or trouble:
        tail = escape(tail + request.end.note + trouble, TAIL_CHARACTERS)
    marker = findings.marker if not trouble or request.job.kind.marker is None else False
    return Collected(
        marker, findings.patterns, findings.events_read, findings.events_written, tuple(files), tail
    )


def _scan(request: Request) -> Findings:
    scan = PayloadScan(request.job.kind)
    for name, fd in (("stdout", request.streams.stdout), ("stderr", request.streams.stderr)):
        stream, offset = scan.streams[name], 0
        while True:
            piece = os.pread(fd, READ_BYTES, offset)
            if not piece:
                break
            offset += len(piece)
            stream.feed(piece)
        stream.end()
    return scan.findings()


def _output(request: Request, index: int, place: Place) -> Dict[str, Any]:
    source = os.path.join(request.work, place.lfn)
    size = _size(source)
    if size is None:
        return not_placed(place, None, "not written")
    if not request.place_outputs:
        end = request.end
        if end.ended_by is not None:
            why = "ended by the agent (%s)" % end.ended_by
        elif end.signal is not None:
            why = "payload ended by signal %d" % end.signal
        else:
            why = "payload ended with exit code %s" % end.exit_code
        return not_placed(place, size, why)
    return _place(request, index, source, size, place)


def _size(path: str) -> Optional[int]:
    """Size of a regular file, None for anything else: a FIFO would be waited for."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _log(request: Request, index: int, place: Place, findings: Findings) -> Dict[str, Any]:
    if not request.place_log:
        return not_placed(place, None, "ended by the agent (%s)" % request.end.ended_by)
    path = request.work + ".log.tgz"
    try:
        _pack(path, request, findings)
        return _place(request, index, path, os.stat(path).st_size, place)
    except OSError as error:
        return not_placed(place, None, "cannot be packed: %s" % error)
    finally:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass


def _pack(path: str, request: Request, findings: Findings) -> None:
    facts = {
        "panda_id": request.job.panda_id,
        "attempt_nr": request.job.attempt_nr,
        "host": os.uname().nodename,
        "argv": list(request.job.argv),
        "end": request.end._asdict(),
        "findings": findings._asdict(),
    }
    text = json.dumps(facts, indent=1).encode()
    with tarfile.open(path, "w:gz", compresslevel=6) as tar:
        for name, fd in ((STDOUT, request.streams.stdout), (STDERR, request.streams.stderr)):
            with open(os.dup(fd), "rb") as file:
                file.seek(0)
                _add(tar, name, os.fstat(fd).st_size, file)
        _add(tar, "job.json", len(text), io.BytesIO(text))


def _add(tar: tarfile.TarFile, name: str, size: int, file: Any) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = size, int(time.time())
    tar.addfile(entry, file)


def _place(request: Request, index: int, source: str, size: int, place: Place) -> Dict[str, Any]:
    job = request.job
    name = ".%d.%d.%s.%d.part" % (job.panda_id, job.attempt_nr, request.nonce, index)
    temp = os.path.join(os.path.dirname(place.target), name)
    return run_steps(placement_steps(request.directory, source, size, place, temp), perform)
