"""Many seeds on all cores: totals by fault and checker, what never occurred, and stories of what went wrong."""

from __future__ import annotations

import gc
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from simulators.world.coverage import ACTIONS, EVENTS, MOMENTS, TRANSITIONS
from simulators.world.fuzz import Result, run_seed
from simulators.world.seeds import KINDS

# Over the seeds of `make test` every kind of fault changes something in so many seeds, and in so many with a crash.
FIRED_MIN, FIRED_WITH_CRASH_MIN = 20, 5
CRASHES = ("crash", "crash-at-effect")


@dataclass(frozen=True, slots=True)
class Broke:
    """The harness itself broke in this seed."""

    seed: int
    text: str


@dataclass(slots=True)
class Totals:
    """Sums over seeds. `seeds_of[kind]`: seeds in which a fault changed something; `with_crash`: and a crash did."""

    seeds: int = 0
    jobs: int = 0
    bundles: int = 0
    events: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0
    seeds_of: Counter[str] = field(default_factory=Counter)
    with_crash: Counter[str] = field(default_factory=Counter)
    occurred: dict[str, Counter[str]] = field(default_factory=dict)
    violations: Counter[str] = field(default_factory=Counter)

    def add(self, result: Result) -> None:
        """One more seed."""
        self.seeds += 1
        self.jobs += result.jobs
        self.bundles += result.bundles
        self.events += result.events
        self.virtual_s += result.virtual_s
        self.cpu_s += result.cpu_s
        crashed = any(result.faults[kind] for kind in CRASHES)
        for kind in (kind for kind, count in result.faults.items() if count):
            self.seeds_of[kind] += 1
            self.with_crash[kind] += crashed
        for name, counts in result.coverage.counts().items():
            self.occurred.setdefault(name, Counter()).update(counts)
        self.violations.update(item.checker for item in result.violations)

    def missing(self) -> Iterator[str]:
        """What did not occur (often enough)."""
        for kind in fault_names():
            if self.seeds_of[kind] < FIRED_MIN:
                yield f"{kind} changed something in {self.seeds_of[kind]} seeds, expected {FIRED_MIN}"
            if self.with_crash[kind] < FIRED_WITH_CRASH_MIN:
                yield f"{kind} met a crash in {self.with_crash[kind]} seeds, expected {FIRED_WITH_CRASH_MIN}"
        wanted: Mapping[str, Iterable[str]] = {
            "events": EVENTS,
            "actions": ACTIONS,
            "transitions": TRANSITIONS,
            "moments": MOMENTS,
        }
        for name, every in wanted.items():
            counts = self.occurred.get(name, Counter())
            for item in sorted(item for item in every if not counts[item]):
                yield f"{name}: {item} never occurred"


def fault_names() -> tuple[str, ...]:
    """Names of all kinds of fault."""
    return tuple(kind.__name__.replace("_", "-") for kind in KINDS)


def run_seeds(seeds: Iterable[int], workers: int) -> Iterator[Result | Broke]:
    """Run the seeds, `workers` at once; results in the order of the seeds."""
    if workers == 1:
        yield from map(attempt, seeds)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(attempt, seeds)


def attempt(seed: int, run: Callable[[int], Result] = run_seed) -> Result | Broke:
    """One seed; an exception is a broken harness, never a violation."""
    # What a seed makes lives until its end: looking through it again and again costs a tenth of the time.
    gc.disable()
    try:
        return run(seed)
    except Exception:
        return Broke(seed, traceback.format_exc())
    finally:
        gc.enable()
        gc.collect()


def command(seed: int) -> str:
    """What repeats a seed."""
    return f"simsite fuzz --seeds {seed}"
