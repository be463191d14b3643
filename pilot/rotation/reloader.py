"""Reads the configuration again for `pilot reload`, in the thread of the connection that asks: never the loop's."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pilot.config import ConfigError, load_config
from pilot.configkeys import Config
from pilot.rotation.commands import Command, parse_command
from pilot.rotation.reload import list_changes, refusals
from pilot.rotation.wiring import WiringError, make_limits


class Reloader:
    """Makes commands of requests; one to reload carries the limits of the new configuration, or why there are none."""

    def __init__(self, path: Path | None, config: Config, agent_file: Path, once: bool) -> None:
        self._path, self._config, self._agent_file, self._once = path, config, agent_file, once
        self._lock = threading.Lock()

    def parse(self, serial: int, request: Mapping[str, Any]) -> Command:
        """The command of one request. Raises ValueError, as parse_command does."""
        command = parse_command(serial, request)
        if command.verb != "reload":
            return command
        if self._path is None or str(self._path) != command.subject:
            return replace(command, lines=(f"this daemon reads {self._path}: nothing is changed",))
        with self._lock:
            return self._read(command, self._path)

    def _read(self, command: Command, path: Path) -> Command:
        try:
            config = load_config(path)
            changes = list_changes(self._config.model_dump(), config.model_dump())
            refused = refusals(changes)
            if refused:
                return replace(command, lines=refused)
            limits = make_limits(config, self._agent_file, once=self._once)
        except ConfigError as error:
            return replace(command, lines=(*error.lines, "nothing is changed"))
        except WiringError as error:
            return replace(command, lines=(f"{error}: nothing is changed",))
        self._config = config
        return replace(
            command, lines=tuple(change.text() for change in changes) or ("nothing differs",), limits=limits
        )
