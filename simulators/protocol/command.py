"""`simsite model`: search the protocol, or a wrong variant of it, and tell the story of what was found."""

from __future__ import annotations

import sys

from simulators.protocol.properties import PROPERTIES
from simulators.protocol.search import Bounds, Found, search
from simulators.protocol.steps import FAULTS
from simulators.protocol.variants import REAL, VARIANTS, WEAK


def run_model(variant: str | None, faults: int | None, fencing: str, without: str | None) -> int:
    """Search and print. 0: nothing found, 1: a property is broken, 2: usage."""
    left_out = frozenset(without.split(",")) if without else frozenset()
    problem = _usage(variant, faults, left_out)
    if problem is not None:
        print(f"simsite: {problem}", file=sys.stderr)
        return 2
    if variant is None:
        bounds = Bounds(2 if faults is None else faults, frozenset(FAULTS) - left_out)
        rules, wanted = (WEAK if fencing == "weak" else REAL), tuple(PROPERTIES)
        print(f"the protocol with {fencing} fencing, {bounds.faults} faults of {len(bounds.kinds)} kinds")
    else:
        chosen = VARIANTS[variant]
        kinds = frozenset(chosen.kinds or FAULTS) - left_out
        bounds = Bounds(chosen.faults if faults is None else faults, kinds)
        rules, wanted = chosen.rules, (chosen.breaks,)
        print(
            f"{variant}: {chosen.what}; looked for: {chosen.breaks}, {bounds.faults} faults of {len(kinds)} kinds"
        )
    found = search(rules, bounds, wanted)
    print(render(found))
    return 1 if found.violation is not None else 0


def _usage(variant: str | None, faults: int | None, left_out: frozenset[str]) -> str | None:
    if variant is not None and variant not in VARIANTS:
        return f"no variant {variant!a}; --list-variants names them"
    if faults is not None and not 0 <= faults <= 9:
        return "--faults is 0 to 9"
    if unknown := sorted(left_out - frozenset(FAULTS)):
        return f"no fault {unknown[0]!a}; there are {', '.join(FAULTS)}"
    return None


def list_variants() -> int:
    """Print all variants with the property that each breaks."""
    width = max(map(len, VARIANTS))
    for name, variant in VARIANTS.items():
        print(f"{name:{width}}  {variant.breaks}  {variant.what}")
    return 0


def render(found: Found) -> str:
    """Figures of a search, and its story if there is one."""
    lines = [f"{found.states} states, {found.steps} steps, depth {found.depth}, {found.seconds:.1f} s"]
    if found.violation is None:
        lines.append("every state was seen; nothing is broken" if found.whole else "not every state was seen")
        return "\n".join(lines)
    lines.append(f"{found.violation.broken} is broken: {PROPERTIES[found.violation.broken]}")
    lines += [f"  {number:2}. {step}" for number, step in enumerate(found.violation.story, 1)]
    return "\n".join(lines)
