"""Breadth-first search over all states, and the story of the first one that breaks a property."""

from __future__ import annotations

import time
from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from simulators.protocol.batch import batch_steps, other_steps
from simulators.protocol.nodes import Next, node_steps
from simulators.protocol.pilots import forget_journal, pilot_steps
from simulators.protocol.properties import PROPERTIES, broken
from simulators.protocol.state import State, initial
from simulators.protocol.steps import FAULTS
from simulators.protocol.variants import Rules

SAFETY = tuple(name for name in PROPERTIES if name != "L")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far is looked: faults in one history, their kinds, states at most."""

    faults: int = 2
    kinds: frozenset[str] = frozenset(FAULTS)
    states_max: int = 20_000_000


@dataclass(frozen=True, slots=True)
class Violation:
    """A property and the shortest story that breaks it."""

    broken: str
    story: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """Result of a search. `whole`: every state was seen. `taken`: names of the steps that occurred."""

    states: int
    steps: int
    depth: int
    seconds: float
    whole: bool
    taken: frozenset[str]
    violation: Violation | None


def successors(state: State, rules: Rules, bounds: Bounds) -> Iterator[Next]:
    """Every step that may come next, with the state after it."""
    may_fail = state.faults < bounds.faults
    for found in _all_steps(state, rules, may_fail):
        if found[0].fault:
            if found[0].name not in bounds.kinds:
                continue
            after = found[2]._replace(faults=state.faults + 1)
            if after.faults == bounds.faults:
                after = forget_journal(after)
            yield found[0], found[1], after
        else:
            yield found


def _all_steps(state: State, rules: Rules, may_fail: bool) -> Iterator[Next]:
    yield from pilot_steps(state, rules, may_fail)
    yield from node_steps(state, rules, may_fail)
    yield from batch_steps(state, rules, may_fail)
    yield from other_steps(state, rules)


@dataclass(slots=True)
class _Graph:
    """States in the order in which they were found; `parents[i]` is where state i was first reached from.

    `helps_from`, `helps_to`: every step that L may rely on, as pairs of numbers.
    """

    states: list[State] = field(default_factory=list)
    numbers: dict[State, int] = field(default_factory=dict)
    parts: dict[object, object] = field(default_factory=dict)
    parents: array[int] = field(default_factory=lambda: array("q"))
    depths: array[int] = field(default_factory=lambda: array("H"))
    helps_from: array[int] = field(default_factory=lambda: array("q"))
    helps_to: array[int] = field(default_factory=lambda: array("q"))

    def add(self, state: State, parent: int) -> tuple[int, bool]:
        """The state's number, and whether it is new."""
        number = self.numbers.get(state)
        if number is not None:
            return number, False
        number = len(self.states)
        # Hash-consing: equal parts of different states are one object.
        part = self.parts.setdefault
        state = State._make([part(item, item) for item in state])
        self.numbers[state] = number
        self.states.append(state)
        self.parents.append(parent)
        self.depths.append(self.depths[parent] + 1 if parent >= 0 else 0)
        return number, True


def search(rules: Rules, bounds: Bounds, wanted: Collection[str] = tuple(PROPERTIES)) -> Found:
    """Look at every state within the bounds; stop at the first that breaks a wanted property."""
    started = time.process_time()
    graph, steps = _Graph(), 0
    graph.add(initial(), -1)
    number = 0
    violation: Violation | None = None
    taken: set[str] = set()
    while number < len(graph.states) <= bounds.states_max and violation is None:
        for step, _, after in successors(graph.states[number], rules, bounds):
            steps += 1
            taken.add(step.name)
            target, new = graph.add(after, number)
            if step.helps and "L" in wanted:
                graph.helps_from.append(number)
                graph.helps_to.append(target)
            if new and (hits := [name for name in broken(after) if name in wanted]):
                violation = Violation(hits[0], _story(graph, target, rules, bounds))
                break
        number += 1
    whole = violation is None and number == len(graph.states)
    if whole and "L" in wanted:
        violation = _stuck(graph, rules, bounds)
    return Found(
        len(graph.states),
        steps,
        max(graph.depths),
        time.process_time() - started,
        whole,
        frozenset(taken),
        violation,
    )


def _stuck(graph: _Graph, rules: Rules, bounds: Bounds) -> Violation | None:
    """L: the first state from which no verdict can be reached by steps that help."""
    ahead = bytearray(len(graph.states))
    first, sources = _backwards(graph)
    todo = [number for number, state in enumerate(graph.states) if state.truth.freed]
    for number in todo:
        ahead[number] = 1
    while todo:
        target = todo.pop()
        for source in sources[first[target] : first[target + 1]]:
            if not ahead[source]:
                ahead[source] = 1
                todo.append(source)
    stuck = ahead.find(0)
    return Violation("L", _story(graph, stuck, rules, bounds)) if stuck >= 0 else None


def _backwards(graph: _Graph) -> tuple[array[int], array[int]]:
    """The helping steps by where they lead: those to state i come from `sources[first[i]:first[i + 1]]`."""
    first = array("q", bytes(8 * (len(graph.states) + 2)))
    for target in graph.helps_to:
        first[target + 2] += 1
    for number in range(2, len(first)):
        first[number] += first[number - 1]
    sources = array("q", bytes(8 * len(graph.helps_to)))
    for source, target in zip(graph.helps_from, graph.helps_to, strict=True):
        sources[first[target + 1]] = source
        first[target + 1] += 1
    return first, sources


def _story(graph: _Graph, number: int, rules: Rules, bounds: Bounds) -> tuple[str, ...]:
    """The steps from the beginning to a state, as sentences."""
    path = [number]
    while graph.parents[path[-1]] >= 0:
        path.append(graph.parents[path[-1]])
    path.reverse()
    lines = []
    for source, target in pairwise(path):
        wanted = graph.states[target]
        step, detail = next(
            (step, detail)
            for step, detail, after in successors(graph.states[source], rules, bounds)
            if after == wanted
        )
        lines.append(step.text.format(*detail))
    return tuple(lines)
