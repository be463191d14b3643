"""Launchers as data: the words that start one process on one more node of a batch job. Pure.

One launcher process per node: ALPS and mpiexec end all ranks of an application when one of its nodes dies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Template


@dataclass(frozen=True, slots=True)
class LauncherKind:
    """Words in front of the argv. They may hold $slots, $index (of the node) and $first_slot (index x slots).

    `tried`: what started an agent with them in a test, or "" if nothing has.
    """

    words: tuple[str, ...]
    reason: str
    tried: str


KINDS: Mapping[str, LauncherKind] = {
    "aprun": LauncherKind(
        ("aprun", "-n", "1", "-N", "1", "-d", "$slots", "-cc", "none", "-b"),
        "ALPS picks a free node of the reservation; -d gives the rank all slots; -cc none: payloads are not bound "
        "to the agent's core; -b: an interpreter is not copied to the node (aprun manual S-2496).",
        "the simulated site's aprun, which refuses unknown options",
    ),
    "srun": LauncherKind(
        (
            *("srun", "--nodes=1", "--ntasks=1", "--cpus-per-task=$slots", "--relative=$index", "--overlap"),
            *("--no-kill", "--kill-on-bad-exit=0"),
        ),
        "--relative names the node within the allocation; --overlap: a step never waits for another one; --no-kill, "
        "--kill-on-bad-exit=0: a node that fails ends no other one (srun manual).",
        "a real Slurm of two nodes on one machine",
    ),
    "mpiexec": LauncherKind(
        ("mpiexec", "-n", "1", "--host", "+n$index", "--bind-to", "none"),
        "Open MPI: +nI is the I-th node of the allocation (Open MPI manual).",
        "",
    ),
    "pbsdsh": LauncherKind(
        ("pbsdsh", "-n", "$first_slot"),
        "Torque numbers slots node by node, so slot index x slots is the first one of the node (pbsdsh manual; "
        "it may lose output lines, which nothing relies on).",
        "",
    ),
    "local": LauncherKind((), "Every node is this machine.", "every test of a gate"),
}


@dataclass(frozen=True, slots=True)
class WordLauncher:
    """A `Launcher` (pilot/ports.py) made of words."""

    words: tuple[str, ...]
    slots: int

    def command(self, node_index: int, argv: Sequence[str]) -> tuple[str, ...]:
        """The argv that starts `argv` on node `node_index` (from 0) of the batch job."""
        values = {"slots": self.slots, "index": node_index, "first_slot": node_index * self.slots}
        return (*(Template(word).substitute(values) for word in self.words), *argv)


def make_launcher(kind: str, slots: int, words: Sequence[str] | None = None) -> WordLauncher:
    """The launcher of a kind; `words` of the config replace the kind's own. Raises ValueError for bad input."""
    if kind not in KINDS:
        raise ValueError(f"launcher kind: expected one of {', '.join(KINDS)}; found {kind!r}")
    if slots < 1:
        raise ValueError(f"slots: expected a positive number, found {slots}")
    launcher = WordLauncher(tuple(words) if words is not None else KINDS[kind].words, slots)
    try:
        launcher.command(0, ())
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"launcher argv: only $slots, $index and $first_slot may follow a $; found {list(launcher.words)} ({error})"
        ) from None
    return launcher
