"""Inputs of a node's jobs: which errands are due, and which jobs have all that they need. Pure.

A file is one thing for all jobs of this agent that name it: looked at once, brought here once, removed when no job of
the node's list needs it any more. Where jobs declare different sizes or checksums of one path, each declaration is a
file of its own: a wrong one fails the jobs that have it, and is no neighbour's. Space is promised to a job as a whole,
in the order in which jobs ask: two jobs that each hold a half of what both need would wait for ever.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

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

    `errand`: number of the one under way for it, since `since_s`. `askers`: slots whose jobs wait for it to be seen or
    for space; `users`: those that space was promised to.
    """

    def __init__(self, declared_file: InputFile, state: str) -> None:
        self.declared, self.state = declared_file, state
        self.errand: Optional[int] = None
        self.since_s: Optional[float] = None
        self.size = declared_file.size or 0
        self.seen: Optional[int] = None
        self.target = ""
        self.askers: Set[int] = set()
        self.users: Set[int] = set()


class Supply:
    """All inputs of one agent. `jobs`: its list; `directory`: its own on the node.

    `room_mib`: for local copies; the agent sets it before the first job asks where the limits say nothing.
    What happens to one file costs as much as the jobs that wait for it: a job may have a thousand.
    """

    def __init__(self, inputs: Inputs, limits: Limits, directory: str, jobs: Iterable[Job]) -> None:
        self._inputs, self._limits, self._directory = inputs, limits, directory
        self._local = inputs.method in ("copy", "command")
        # What a command brings may be nothing that this node could look at.
        self._first_state = "seen" if inputs.method == "command" else "new"
        jobs = tuple(jobs)
        self._agreed = _agreed(item for job in jobs for item in job.inputs)
        self._wanted = Counter(self._as_file(item) for job in jobs for item in job.inputs)
        self._unwanted: Set[InputFile] = set()
        self.needs_room = self._local and bool(self._wanted) and limits.inputs_max_mib is None
        self.room_mib = limits.inputs_max_mib or 0.0
        self._taken = self._going = 0  # bytes of what is promised or here, and of what is being removed
        self._files: Dict[InputFile, _File] = {}
        self._asking: Dict[int, Job] = {}
        self._getting: Dict[int, Job] = {}
        self._holding: Dict[int, Job] = {}
        self._lacks: Dict[int, int] = {}  # by slot: files not seen while it asks, not here while it gets
        self._to_look: Deque[InputFile] = deque()
        self._to_fetch: Deque[InputFile] = deque()
        self._under_way: Dict[int, InputFile] = {}
        self._hands = limits.inputs_at_once
        self._told: List[Supplied] = []
        self._serial = 0

    def ask(self, slot: int, job: Job) -> None:
        """A job in this slot needs its inputs."""
        trouble = self._names_trouble(job)
        if trouble is not None:
            self._told.append(Supplied(slot, InputsMade((), trouble)))
            self.forget(job)
            return
        self._asking[slot], self._lacks[slot] = job, 0
        for item in self._inputs_of(job):
            file = self._files.get(item)
            if file is None:
                file = self._add(item)
            file.askers.add(slot)
            self._lacks[slot] += file.state in ("new", "going")

    def leave(self, slot: int) -> None:
        """The job in this slot, if it has inputs, needs them no more: it is over, or is not started."""
        for jobs in (self._asking, self._getting, self._holding):
            job = jobs.pop(slot, None)
            if job is None:
                continue
            del self._lacks[slot]
            for file in self._files_of(job):
                file.askers.discard(slot)
                file.users.discard(slot)
                if file.state == "promised" and file.errand is None and not file.users:
                    file.state = "seen"
                    self._taken -= file.size
            self.forget(job)

    def forget(self, job: Job) -> None:
        """This job of the list will not need its inputs on this node."""
        for item in map(self._as_file, job.inputs):
            self._wanted[item] -= 1
            if self._wanted[item] <= 0:
                self._unwanted.add(item)

    def done(self, number: int, outcome: Outcome) -> None:
        """What became of an errand; one that was given up is not listened to."""
        item = self._under_way.pop(number, None)
        if item is None:
            return
        file = self._files[item]
        file.errand = file.since_s = None
        if file.state == "going":
            self._is_gone(file)
            return
        self._hands += 1
        if outcome.trouble:
            self._fail(file, outcome)
        elif file.state == "new":
            file.state, file.seen, file.size = "seen", outcome.size, outcome.size
            self._count(file.askers, -1)
        else:
            self._taken += outcome.size - file.size
            file.state, file.size = "here", outcome.size
            self._count(file.users, -1)

    def look_at_clock(self, now_s: float) -> None:
        """Give up errands that say nothing for longer than their tries may take; called every few seconds."""
        limits = self._limits
        most_s = limits.input_tries * (limits.input_try_s + TRY_AGAIN_S[-1]) + SPARE_S
        for number, item in list(self._under_way.items()):
            file = self._files[item]
            file.since_s = now_s if file.since_s is None else file.since_s
            if now_s - file.since_s >= most_s:
                self.done(number, Outcome(0, "%s: no answer in %.0f s" % (item.path, now_s - file.since_s)))

    def step(self) -> Tuple[List[Errand], List[Supplied]]:
        """Errands to begin now, and jobs that wait no longer. Said once: what it says is noted as done."""
        errands: List[Errand] = []
        while self._to_look and self._hands > 0:
            errands.extend(self._look(self._to_look.popleft()))
        for slot, job in list(self._asking.items()):
            if self._lacks[slot]:
                continue
            if not self._local:
                self._hold(slot, self._asking)
                continue
            errands.extend(self._make_room(slot, job))
            if self._asking.get(slot) is job:
                break  # who asked first is served first, or large jobs would wait for ever
        while self._to_fetch and self._hands > 0:
            errands.extend(self._fetch(self._to_fetch.popleft()))
        for slot in [slot for slot in self._getting if not self._lacks[slot]]:
            self._hold(slot, self._getting)
        errands.extend(self._drops())
        told, self._told = self._told, []
        return errands, told

    # --- files ------------------------------------------------------------------------------------------------

    def _as_file(self, item: InputFile) -> InputFile:
        """What stands for it here: all that jobs declare of its path if they agree, else its own declaration."""
        return self._agreed.get(item.path, item)

    def _inputs_of(self, job: Job) -> Iterable[InputFile]:
        return dict.fromkeys(map(self._as_file, _once(job)))

    def _files_of(self, job: Job) -> List[_File]:
        return [self._files[item] for item in self._inputs_of(job) if item in self._files]

    def _add(self, item: InputFile) -> _File:
        file = self._files[item] = _File(item, self._first_state)
        if file.state == "new":
            self._to_look.append(item)
        return file

    def _count(self, slots: Set[int], change: int) -> None:
        for slot in slots:
            self._lacks[slot] += change

    def _is_gone(self, file: _File) -> None:
        """It was removed; who asked for it meanwhile gets it anew."""
        del self._files[file.declared]
        self._going -= file.size
        if file.askers:
            again = self._add(file.declared)
            again.askers = file.askers
            if again.state == "seen":
                self._count(again.askers, -1)

    def _fail(self, file: _File, outcome: Outcome) -> None:
        """Who waits for it hears why. Who asks later finds it new: a filesystem may be back by then."""
        for slot in sorted(file.askers | file.users):
            self._told.append(Supplied(slot, InputsMade((), outcome.trouble, outcome.absent)))
            self.leave(slot)
        self._taken -= file.size if file.state == "promised" else 0
        del self._files[file.declared]

    # --- errands ----------------------------------------------------------------------------------------------

    def _begin(self, file: _File) -> int:
        self._serial += 1
        file.errand = self._serial
        self._under_way[self._serial] = file.declared
        return self._serial

    def _look(self, item: InputFile) -> Iterator[Errand]:
        file = self._files.get(item)
        if file is not None and file.state == "new" and file.errand is None:
            self._hands -= 1
            number = self._begin(file)
            yield Errand(number, Look(item.path, item.size, self._limits.input_tries))

    def _fetch(self, item: InputFile) -> Iterator[Errand]:
        file, limits = self._files.get(item), self._limits
        if file is None or file.state != "promised" or file.errand is not None:
            return
        self._hands -= 1
        number = self._begin(file)
        file.target = "%s/input.%d" % (self._directory, number)
        command = self._inputs.command if self._inputs.method == "command" else ()
        path, size, adler32 = item
        tries, try_s = limits.input_tries, limits.input_try_s
        yield Errand(number, Fetch(path, file.target, file.seen, size, adler32, command, tries, try_s))

    def _drops(self) -> Iterator[Errand]:
        """What no job of the list needs any more; what is still on its way here is waited for."""
        for item in list(self._unwanted):
            file = self._files.get(item)
            if file is None or file.errand is None:
                self._unwanted.discard(item)
            if file is not None and file.errand is None:
                yield from self._drop(file)

    def _drop(self, file: _File) -> Iterator[Errand]:
        if file.state == "here":
            file.state = "going"
            self._taken -= file.size
            self._going += file.size
            self._count(file.askers, 1)
            yield Errand(self._begin(file), Drop(file.target))
        else:
            del self._files[file.declared]

    # --- space ------------------------------------------------------------------------------------------------

    def _make_room(self, slot: int, job: Job) -> Iterator[Errand]:
        """Promise space for all that this job needs, or remove what nobody uses now, or say that it never fits."""
        mine, room = self._files_of(job), self.room_mib * MIB
        whole = sum(file.size for file in mine)
        need = sum(file.size for file in mine if file.state == "seen")
        if whole > room:
            said = "inputs of %.0f MiB do not fit into %.0f MiB of this node" % (whole / MIB, self.room_mib)
            self._told.append(Supplied(slot, InputsMade((), said)))
            self.leave(slot)
        elif self._taken + self._going + need <= room:
            self._promise(slot, mine)
        else:
            for file in list(self._files.values()):
                idle = file.state == "here" and file.errand is None and not file.users
                if idle and slot not in file.askers and self._taken + need > room:
                    yield from self._drop(file)

    def _promise(self, slot: int, mine: List[_File]) -> None:
        self._getting[slot] = self._asking.pop(slot)
        self._lacks[slot] = sum(file.state != "here" for file in mine)
        for file in mine:
            file.askers.discard(slot)
            file.users.add(slot)
            if file.state == "seen":
                file.state = "promised"
                self._taken += file.size
                self._to_fetch.append(file.declared)

    # --- what jobs are told -----------------------------------------------------------------------------------

    def _names_trouble(self, job: Job) -> Optional[str]:
        if self._inputs.method == "in place":
            return None
        names = [item.path.rpartition("/")[2] for item in job.inputs]
        others = [*TAKEN, *(place.lfn for place in declared(job))]
        if len(set(names)) == len(names) and not set(names) & set(others):
            return None
        return "inputs cannot be made available: %s: names that are taken" % ", ".join(names)

    def _hold(self, slot: int, waiting: Dict[int, Job]) -> None:
        job = self._holding[slot] = waiting.pop(slot)
        places: Iterable[Tuple[str, str]] = ()
        if self._inputs.method != "in place":
            files = ((item.path, self._files[self._as_file(item)]) for item in job.inputs)
            places = ((path, file.target or path) for path, file in files)
        self._told.append(Supplied(slot, InputsMade(tuple(places))))


def _once(job: Job) -> Iterable[InputFile]:
    return dict.fromkeys(job.inputs)


def _agreed(items: Iterable[InputFile]) -> Dict[str, InputFile]:
    """By path all that is declared of it, where no two declarations contradict each other."""
    found: Dict[str, InputFile] = {}
    at_odds: Set[str] = set()
    for item in items:
        before = found.setdefault(item.path, item)
        if before is item:
            continue
        for mine, other in ((item.size, before.size), (item.adler32, before.adler32)):
            if mine is not None and other is not None and mine != other:
                at_odds.add(item.path)
        size = before.size if before.size is not None else item.size
        adler32 = before.adler32 if before.adler32 is not None else item.adler32
        found[item.path] = InputFile(item.path, size, adler32)
    return {path: item for path, item in found.items() if path not in at_odds}
