"""After a payload: read what it printed, pack its log, place its files. Runs beside the agent's loop, in a thread.

`collect_steps` decides, as a generator of operations; `collect` carries them out on the node.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import tarfile
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from pilot.multijob.node.files import Steps, perform, run_steps
from pilot.multijob.node.journal import escape
from pilot.multijob.node.manifest import Kind, PayloadStep, Place
from pilot.multijob.node.orders import Request
from pilot.multijob.node.payload import STDERR, STDOUT, Streams
from pilot.multijob.node.scan import TAIL_CHARACTERS, Findings, PayloadScan, StreamScan
from pilot.multijob.node.steps import Collected, StepEnd, declared, not_placed, placement_steps

READ_BYTES = 1024 * 1024
# As much is read and searched in less time than it takes to wake a thread.
LITTLE_MIB = 0.0625


class Scan(NamedTuple):
    """Replies the `Findings` of what the payload printed. `ran`: its steps that ran, if it has several."""

    kind: Kind
    steps: Tuple[PayloadStep, ...] = ()
    ran: Tuple[StepEnd, ...] = ()


class LocalSize(NamedTuple):
    """Replies the size of a regular file on the node, None if there is none."""

    path: str


class Pack(NamedTuple):
    """Pack streams and facts into this new file. Replies its size."""

    path: str
    request: Request
    findings: Findings


class Clean(NamedTuple):
    """Close the streams, remove the work directory and, if anything was packed, that. Replies None."""

    work: str
    packed: bool


def collect(request: Request, streams: Streams) -> Collected:
    """All facts of one ended payload, carried out here; its streams are closed, its work directory is removed."""

    def carry_out(operation: Any) -> Any:
        own = _OPERATIONS.get(type(operation))
        return perform(operation) if own is None else own(operation, streams)

    return run_steps(collect_steps(request), carry_out)


def left_little(request: Request, streams: Streams) -> bool:
    """Whether all that a payload left is a little text on its streams: nothing to pack, place or search for long."""
    if declared(request.job) or streams.size_mib() > LITTLE_MIB:
        return False
    try:
        return len(os.listdir(request.work)) <= len((STDOUT, STDERR))
    except OSError:
        return False


def collect_steps(request: Request) -> Steps[Collected]:
    """Read what the payload printed, pack its log, place its files. Raises nothing."""
    findings = Findings(None, (), None, None, "")
    files: List[Dict[str, Any]] = []
    trouble = left = ""
    try:
        findings = yield Scan(request.job.kind, request.job.steps, request.end.steps)
        for index, place in enumerate(request.job.outputs):
            files.append((yield from _output(request, index, place)))
        if request.job.log is not None:
            files.append((yield from _log(request, len(request.job.outputs), request.job.log, findings)))
    except Exception as error:  # the top of a thread: this job's facts stay incomplete, its slot comes free
        trouble = "cannot be collected: %r" % (error,)
        files.extend(not_placed(place, None, trouble) for place in declared(request.job)[len(files) :])
    try:
        yield Clean(request.work, request.job.log is not None)
    except Exception as error:  # what stays is removed with the agent's directory; the slot must come free
        left = "cannot be cleaned: %r" % (error,)
    tail = findings.stderr_tail
    if request.end.note or trouble or left:
        tail = escape(tail + request.end.note + trouble + left, TAIL_CHARACTERS)
    return Collected(
        findings.marker,
        findings.patterns,
        findings.events_read,
        findings.events_written,
        tuple(files),
        tail,
        escape(trouble, TAIL_CHARACTERS),
        findings.markers,
    )


def _output(request: Request, index: int, place: Place) -> Steps[Dict[str, Any]]:
    source = os.path.join(request.work, place.lfn)
    size: Optional[int] = yield LocalSize(source)
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
    return (yield from _place(request, index, source, size, place))


def _log(request: Request, index: int, place: Place, findings: Findings) -> Steps[Dict[str, Any]]:
    if not request.place_log:
        return not_placed(place, None, "ended by the agent (%s)" % request.end.ended_by)
    path = _log_path(request.work)
    try:
        size: int = yield Pack(path, request, findings)
    except OSError as error:
        return not_placed(place, None, "cannot be packed: %s" % error)
    return (yield from _place(request, index, path, size, place))


def _log_path(work: str) -> str:
    return work + ".log.tgz"


def _place(request: Request, index: int, source: str, size: int, place: Place) -> Steps[Dict[str, Any]]:
    job = request.job
    name = ".%d.%d.%s.%d.part" % (job.panda_id, job.attempt_nr, request.nonce, index)
    temp = os.path.join(os.path.dirname(place.target), name)
    return (yield from placement_steps(request.directory, source, size, place, temp))


# --- carried out on the node ------------------------------------------------------------------------------------


def _scan(operation: Scan, streams: Streams) -> Findings:
    if operation.steps:
        return _scan_steps(operation, streams)
    scan = PayloadScan(operation.kind)
    for name, fd in (("stdout", streams.stdout), ("stderr", streams.stderr)):
        _feed(scan.streams[name], fd, 0, None)
        scan.streams[name].end()
    return scan.findings()


def _scan_steps(operation: Scan, streams: Streams) -> Findings:
    """One pass as well: each step's end marker counts only in what that step printed."""
    scan = PayloadScan(operation.kind._replace(marker=None))
    wanted = {step.name: step.marker for step in operation.steps}
    found: Dict[str, bool] = {}
    for index, (name, fd) in enumerate((("stdout", streams.stdout), ("stderr", streams.stderr))):
        stream, offset = scan.streams[name], 0
        for step in operation.ran:
            marker = wanted[step.name]
            here = marker is not None and marker.where == name
            stream.expect(marker.text if marker is not None and here else None)
            offset = _feed(stream, fd, offset, step.printed[index])
            stream.end()
            found[step.name] = found.get(step.name, False) or stream.marked
        _feed(stream, fd, offset, None)
        stream.end()
    markers = tuple(None if wanted[step.name] is None else found[step.name] for step in operation.ran)
    expected = [name for name, marker in wanted.items() if marker is not None]
    whole = all(found.get(name, False) for name in expected) if expected else None
    return scan.findings(markers)._replace(marker=whole)


def _feed(stream: StreamScan, fd: int, offset: int, until: Optional[int]) -> int:
    """Give the stream what stands from `offset` on; where that ended."""
    while until is None or offset < until:
        piece = os.pread(fd, READ_BYTES if until is None else min(READ_BYTES, until - offset), offset)
        if not piece:
            break
        offset += len(piece)
        stream.feed(piece)
    return offset


def _local_size(operation: LocalSize, streams: Streams) -> Optional[int]:
    """None for anything but a regular file: a FIFO would be waited for."""
    try:
        found = os.stat(operation.path)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _pack(operation: Pack, streams: Streams) -> int:
    request = operation.request
    facts = {
        "panda_id": request.job.panda_id,
        "attempt_nr": request.job.attempt_nr,
        "host": os.uname().nodename,
        "argv": list(request.job.argv),
        "end": request.end._asdict(),
        "findings": operation.findings._asdict(),
    }
    text = json.dumps(facts, indent=1).encode()
    with tarfile.open(operation.path, "w:gz", compresslevel=6) as tar:
        for name, fd in ((STDOUT, streams.stdout), (STDERR, streams.stderr)):
            with open(os.dup(fd), "rb") as file:
                file.seek(0)
                _add(tar, name, os.fstat(fd).st_size, file)
        _add(tar, "job.json", len(text), io.BytesIO(text))
    return os.stat(operation.path).st_size


def _add(tar: tarfile.TarFile, name: str, size: int, file: Any) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = size, int(time.time())
    tar.addfile(entry, file)


def _clean(operation: Clean, streams: Streams) -> None:
    os.close(streams.stdout)
    os.close(streams.stderr)
    try:
        for name in (STDOUT, STDERR):
            os.unlink(operation.work + "/" + name)
        os.rmdir(operation.work)
    except OSError:  # it left more, or less
        shutil.rmtree(operation.work, ignore_errors=True)
    if operation.packed:
        try:
            os.unlink(_log_path(operation.work))
        except OSError:
            pass  # packing failed; whatever else stays is removed with the agent's directory


_OPERATIONS: Dict[type, Callable[[Any, Streams], Any]] = {
    Scan: _scan,
    LocalSize: _local_size,
    Pack: _pack,
    Clean: _clean,
}
