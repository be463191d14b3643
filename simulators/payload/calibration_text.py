"""Text of one calibration payload, the value of a key for one interval of validity.

    detector MM01X1__
    type align
    version 2
    offset_mm 0.12345
    scale 0.0001234
    strip_um 1024
    12 -7 33 ...

`name value` lines, then `name count` and that many whole numbers on one line. Names by calibration type: FIELDS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from simulators.payload.constants import PlaneConstants

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# calibration type -> (numbers, array with one number per strip)
FIELDS: dict[str, tuple[tuple[str, ...], str]] = {
    "align": (("offset_mm", "scale"), "strip_um"),
    "timing": (("t0_ns", "bin_ns"), "strip_ps"),
    "noise": (("sigma_mm",), "occupancy_ppm"),
}


class CalibrationTextError(Exception):
    """The payload of a calibration cannot be understood."""


def render_constants(detector: str, ctype: str, version: int, constants: PlaneConstants) -> bytes:
    """Payload of one calibration type of a plane's constants."""
    numbers, array = FIELDS[ctype]
    return render_payload(
        detector,
        ctype,
        version,
        {name: getattr(constants, name) for name in numbers},
        array,
        getattr(constants, array),
    )


def render_payload(
    detector: str,
    ctype: str,
    version: int,
    numbers: Mapping[str, float],
    array: str,
    values: NDArray[np.int64],
) -> bytes:
    """Payload of any key."""
    lines = [f"detector {detector}", f"type {ctype}", f"version {version}"]
    lines += [f"{name} {value:.7f}" for name, value in numbers.items()]
    lines += [f"{array} {len(values)}", " ".join(map(str, values.tolist()))]
    return ("\n".join(lines) + "\n").encode("ascii")


def parse_payload(content: bytes, detector: str, ctype: str, strips: int) -> dict[str, Any]:
    """Numbers and the array of a payload by name. Raises CalibrationTextError unless it is complete and of this key."""
    import numpy as np

    names, array = FIELDS[ctype]
    lines = content.decode("ascii", "replace").splitlines()
    words = dict(line.partition(" ")[::2] for line in lines[:-1])
    expected = {"detector": detector, "type": ctype, array: str(strips)}
    for name, value in expected.items():
        if words.get(name) != value:
            raise CalibrationTextError(f"{name}: found {words.get(name)!r}, expected {value!r}")
    try:
        fields: dict[str, Any] = {name: float(words[name]) for name in names}
        fields[array] = np.array(lines[-1].split(), dtype=np.int64)
    except (KeyError, ValueError) as error:
        raise CalibrationTextError(f"no number: {error}") from None
    if len(fields[array]) != strips:
        raise CalibrationTextError(f"{array}: found {len(fields[array])} values, expected {strips}")
    return fields
