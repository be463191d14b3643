"""What the daemon takes, seen from outside: CPU and memory of its process, asked of the kernel again and again."""

from __future__ import annotations

import threading

import psutil

EVERY_S = 0.25


class Watcher:
    """Samples one process in a thread of its own until `stop` or its end."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._stop = threading.Event()
        self.cpu_s = self.commands_cpu_s = self.rss_mib = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                times = self._process.cpu_times()
                memory = self._process.memory_info().rss / 2**20
            except psutil.NoSuchProcess:
                return
            self.cpu_s = times.user + times.system
            # What its ended children (qsub, qstat) took.
            self.commands_cpu_s = times.children_user + times.children_system
            self.rss_mib = max(self.rss_mib, memory)
            if self._stop.wait(EVERY_S):
                return

    def stop(self) -> None:
        """The last sample is taken now."""
        self._stop.set()
        self._thread.join(5.0)
