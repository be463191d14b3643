"""Looks at the space and inodes left on the site's filesystems. Implements `ports.Space`; decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pilot.multijob.evidence import on_disk
from pilot.multijob.node.files import Steps
from pilot.multijob.operations import Free
from pilot.ports import Failure, SpaceSeen, Unavailable


@dataclass(frozen=True, slots=True)
class FileSpace:
    """Free space as the filesystems tell it."""

    run: Callable[[Steps[Any]], Any] = on_disk

    def look(self, directories: Mapping[str, str]) -> Mapping[str, SpaceSeen] | Failure:
        """Each directory by its name in the configuration."""
        seen: Mapping[str, SpaceSeen] | Failure = self.run(self._look(directories))
        return seen

    def _look(self, directories: Mapping[str, str]) -> Steps[Mapping[str, SpaceSeen] | Failure]:
        found: dict[str, SpaceSeen] = {}
        for name, path in directories.items():
            try:
                free_bytes, inodes = yield Free(path)
            except FileNotFoundError:
                continue  # made with its first file
            except OSError as error:
                return Unavailable(f"{path}: {error.strerror or error}")
            found[name] = SpaceSeen(free_bytes // 2**20, inodes)
        return found
