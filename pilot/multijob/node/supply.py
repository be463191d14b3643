"""Inputs of a node's jobs: which errands are due, and which jobs have all that they need. Pure.

A file is one thing for all jobs of this agent that name it: looked at once, brought here once, removed when no job of
the node's list needs it any more. Space is promised to a job as a whole, in the order in which jobs ask: two jobs that
each hold a half of what both need would wait for ever.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

from pilot.multijob.node.manifest import InputFile, Inputs, Job, Limits
from pilot.multijob.node.provision import Drop, Fetch, Look, Outcome, Request
from pilot.multijob.node.steps import TRY_AGAIN_S, InputsMade, declared

# An errand is given up this long after the time that its tries may take: a thread in a dead filesystem never ends.
SPARE_S = 60.0
MIB = 1048576.0
# Names that the agent itself gives files in a work directory.
TAKEN = ("payload_stdout.txt", "payload_stderr.txt")


class Errand(NamedTuple):
    """Begin an errand, beside everything else; `ErrandDone` with its number is its news. Replies None."""

    number: int
    request: Request


class Supplied(NamedTuple):
    """What became of the inputs of the job in this slot."""

    slot: int
    made: InputsMade


class _File:
    """An input that some job needs. `state`: "new", "seen", "promised" (space for it), "here", "going".

    `errand`: number of the one under way for it, since `since_s`. `users`: slots whose jobs it was promised to.
    """

    def __init__(self, declared_file: InputFile, state: str) -> None:
        self.declared, self.state = declared_file, state
        self.errand: Optional[int] = None
        self.since_s: Optional[float] = None
        self.size = declared_file.size or 0
        self.seen: Optional[int] = None
        self.target = ""
        self.users: Set[int] = set()
        self.failure: Optional[Outcome] = None


class Supply:
    """All inputs of one agent. `jobs`: its list; `directory`: its own on the node.

    `room_mib`: for local copies; the agent sets it before the first job asks where the limits say nothing.
    """

    def __init__(self, inputs: Inputs, limits: Limits, directory: str, jobs: Iterable[Job]) -> None:
        self._inputs, self._limits, self._directory = inputs, limits, directory
        self._local = inputs.method in ("copy", "command")
        # What a command brings may be nothing that this node could look at.
        self._first_state = "seen" if inputs.method == "command" else "new"
        self._wanted = Counter(item.path for job in jobs for item in job.inputs)
        self.needs_room = self._local and bool(self._wanted) and limits.inputs_max_mib is None
        self.room_mib = limits.inputs_max_mib or 0.0
        self._files: Dict[str, _File] = {}
        self._asking: Dict[int, Job] = {}
        self._getting: Dict[int, Job] = {}
        self._holding: Dict[int, Job] = {}
        self._serial = 0

    def ask(self, slot: int, job: Job) -> None:
        """A job in this slot needs its inputs."""
        self._asking[slot] = job
        for item in job.inputs:
            self._files.setdefault(item.path, _File(item, self._first_state))

    def leave(self, slot: int) -> None:
        """The job in this slot, if it has inputs, needs them no more: it is over, or is not started."""
        for jobs in (self._asking, self._getting, self._holding):
            job = jobs.pop(slot, None)
            if job is not None:
                for file in self._files_of(job):
                    file.users.discard(slot)
                    if file.state == "promised" and file.errand is None and not file.users:
                        file.state = "seen"
                self.forget(job)

    def forget(self, job: Job) -> None:
        """This job of the list will not need its inputs on this node."""
        for item in job.inputs:
            self._wanted[item.path] -= 1

    def done(self, number: int, outcome: Outcome) -> None:
        """What became of an errand; one that was given up is not listened to."""
        for path, file in list(self._files.items()):
            if file.errand == number:
                self._note(path, file, outcome)

    def look_at_clock(self, now_s: float) -> None:
        """Give up errands that say nothing for longer than their tries may take; called every few seconds."""
        limits = self._limits
        most_s = limits.input_tries * (limits.input_try_s + TRY_AGAIN_S[-1]) + SPARE_S
        for path, file in list(self._files.items()):
            if file.errand is not None:
                file.since_s = now_s if file.since_s is None else file.since_s
                if now_s - file.since_s >= most_s:
                    said = "%s: no answer in %.0f s" % (path, now_s - file.since_s)
                    self._note(path, file, Outcome(0, said))

    def step(self) -> Tuple[List[Errand], List[Supplied]]:
        """Errands to begin now, and jobs that wait no longer. Said once: what it says is noted as done."""
        if not self._files:
            return [], []
        ready = list(self._failures())
        errands = list(self._looks())
        for slot, job in list(self._asking.items()):
            if not self._is_seen(job):
                continue
            if not self._local:
                self._holding[slot] = self._asking.pop(slot)
                ready.append(Supplied(slot, self._made(job)))
                continue
            errands += self._make_room(slot, job)
            if self._asking.get(slot) is job:
                break  # who asked first is served first, or large jobs would wait for ever
        errands += self._fetches()
        for slot, job in list(self._getting.items()):
            if all(file.state == "here" for file in self._files_of(job)):
                self._holding[slot] = self._getting.pop(slot)
                ready.append(Supplied(slot, self._made(job)))
        return errands + list(self._drops()), ready

    def _files_of(self, job: Job) -> List[_File]:
        return [self._files[item.path] for item in job.inputs if item.path in self._files]

    def _note(self, path: str, file: _File, outcome: Outcome) -> None:
        file.errand = file.since_s = None
        if file.state == "going":
            del self._files[path]
            for item in chain.from_iterable(job.inputs for job in self._asking.values()):
                if item.path == path:  # asked for while it went: it is brought again
                    self._files.setdefault(path, _File(item, self._first_state))
        elif outcome.trouble:
            file.failure = outcome
        else:
            file.size = outcome.size
            if file.state == "new":
                file.state, file.seen = "seen", outcome.size
            else:
                file.state = "here"

    def _begin(self, file: _File, request: Request) -> Errand:
        self._serial += 1
        file.errand = self._serial
        return Errand(self._serial, request)

    # --- what may be begun ------------------------------------------------------------------------------------

    def _free_hands(self) -> int:
        under_way = sum(file.errand is not None and file.state != "going" for file in self._files.values())
        return self._limits.inputs_at_once - under_way

    def _looks(self) -> Iterator[Errand]:
        for job in self._asking.values():
            for file in self._files_of(job):
                if self._free_hands() > 0 and file.state == "new" and file.errand is None:
                    yield self._begin(
                        file, Look(file.declared.path, file.declared.size, self._limits.input_tries)
                    )

    def _fetches(self) -> Iterator[Errand]:
        for job in self._getting.values():
            for file in self._files_of(job):
                if self._free_hands() > 0 and file.state == "promised" and file.errand is None:
                    limits, item = self._limits, file.declared
                    errand = self._begin(file, Drop(""))
                    file.target = "%s/input.%d" % (self._directory, errand.number)
                    command = self._inputs.command if self._inputs.method == "command" else ()
                    yield errand._replace(
                        request=Fetch(
                            item.path,
                            file.target,
                            file.seen,
                            item.size,
                            item.adler32,
                            command,
                            limits.input_tries,
                            limits.input_try_s,
                        )
                    )

    def _drops(self) -> Iterator[Errand]:
        """What no job of the list needs any more; what is still on its way here is waited for."""
        for path, file in list(self._files.items()):
            if file.errand is None and self._wanted[path] <= 0:
                yield from self._drop(path, file)

    def _drop(self, path: str, file: _File) -> Iterator[Errand]:
        if file.state == "here":
            file.state = "going"
            yield self._begin(file, Drop(file.target))
        else:
            del self._files[path]

    # --- space ------------------------------------------------------------------------------------------------

    def _is_seen(self, job: Job) -> bool:
        return all(file.state in ("seen", "promised", "here") for file in self._files_of(job))

    def _make_room(self, slot: int, job: Job) -> Iterator[Errand]:
        """Promise space for all that this job needs, or remove what nobody uses now."""
        mine = self._files_of(job)
        need = sum(file.size for file in mine if file.state == "seen")
        taken = sum(file.size for file in self._files.values() if file.state in ("promised", "here"))
        going = sum(file.size for file in self._files.values() if file.state == "going")
        if taken + going + need <= self.room_mib * MIB:
            for file in mine:
                file.users.add(slot)
                file.state = "promised" if file.state == "seen" else file.state
            self._getting[slot] = self._asking.pop(slot)
            return
        for path, file in list(self._files.items()):
            idle = file.state == "here" and file.errand is None and not file.users
            if idle and file not in mine and taken + need > self.room_mib * MIB:
                taken -= file.size
                yield from self._drop(path, file)

    # --- what jobs are told -----------------------------------------------------------------------------------

    def _failures(self) -> Iterator[Supplied]:
        for slot, job in list(chain(self._asking.items(), self._getting.items())):
            failure = self._failure(job)
            if failure is not None:
                self.leave(slot)
                yield Supplied(slot, InputsMade((), failure.trouble, failure.absent))
        # Who asks for it later finds it new: a filesystem may be back by then.
        for path, file in list(self._files.items()):
            if file.failure is not None:
                del self._files[path]

    def _failure(self, job: Job) -> Optional[Outcome]:
        failures = [file.failure for file in self._files_of(job) if file.failure is not None]
        if failures:
            return failures[0]
        names = [_name(item.path) for item in job.inputs]
        others = [*TAKEN, *(place.lfn for place in declared(job))]
        if self._inputs.method != "in place" and (len(set(names)) < len(names) or set(names) & set(others)):
            return Outcome(0, "inputs cannot be made available: %s: names that are taken" % ", ".join(names))
        mine = self._files_of(job)
        need = sum(file.size for file in mine)
        if self._local and self._is_seen(job) and need > self.room_mib * MIB:
            said = "inputs of %.0f MiB do not fit into %.0f MiB of this node" % (need / MIB, self.room_mib)
            return Outcome(0, said)
        return None

    def _made(self, job: Job) -> InputsMade:
        if self._inputs.method == "in place":
            return InputsMade(())
        here = ((item.path, self._files[item.path].target or item.path) for item in job.inputs)
        return InputsMade(tuple(here))


def _name(path: str) -> str:
    return path.rpartition("/")[2]
