"""Looks at the inputs of jobs on the site's filesystem. Implements `ports.Inputs`; decides nothing.

A sequence of file operations as values, as `evidence` has it. What cannot be known now (an I/O error) is told as such.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pilot.multijob.evidence import on_disk
from pilot.multijob.node.files import Inspect, Steps
from pilot.ports import InputSeen, InputsSeen, JobKey

# A definite no of the filesystem; every other error says nothing about the file.
DEFINITE: Mapping[int, str] = {
    errno.ENOENT: "is not there",
    errno.ENOTDIR: "is not there",
    errno.EACCES: "may not be read",
    errno.EPERM: "may not be read",
    errno.EISDIR: "is no file",
    errno.EINVAL: "is no file",
    errno.ENXIO: "is no file",
    errno.ELOOP: "is a loop of links",
    errno.ENAMETOOLONG: "has too long a name",
}


@dataclass(frozen=True, slots=True)
class FileInputs:
    """Inputs as files of absolute paths."""

    run: Callable[[Steps[Any]], Any] = on_disk

    def look(self, paths: Mapping[JobKey, Sequence[str]]) -> InputsSeen:
        """Sizes of all inputs of each job, or the first trouble."""
        seen: InputsSeen = self.run(self._look(paths))
        return seen

    def _look(self, paths: Mapping[JobKey, Sequence[str]]) -> Steps[InputsSeen]:
        found = {}
        for key, names in paths.items():
            found[key] = yield from self._job(names)
        return InputsSeen(found)

    def _job(self, names: Sequence[str]) -> Steps[InputSeen]:
        sizes: list[int] = []
        for name in names:
            try:
                size: int = yield Inspect(name)
            except OSError as error:
                definite = DEFINITE.get(error.errno or 0)
                if definite is None:
                    return InputSeen((), unknown=f"{name[:200]}: {error.strerror or error}")
                return InputSeen((), trouble=f"{name[:200]} {definite}")
            if size == 0:
                return InputSeen((), trouble=f"{name[:200]} is empty")
            sizes.append(size)
        return InputSeen(tuple(sizes))
