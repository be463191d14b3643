"""Calibrations as COMPASS has them, in size and in how a job asks for them: 150 keys, 5 MB a job, 300 MB in all."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

KEYS = 150
RUNS = 60
FIRST_RUN = 270_000
PAYLOAD_BYTES = 34_000
SEED = 7

_TABLES = (
    "CREATE TABLE calib_iov (detector VARCHAR(16) NOT NULL, ctype VARCHAR(16) NOT NULL, t_from BIGINT NOT NULL, "
    "t_to BIGINT NOT NULL, version INT NOT NULL, payload_id INT NOT NULL, "
    "PRIMARY KEY (detector, ctype, t_from, version)) ENGINE=MyISAM;\n"
    "CREATE TABLE calib_payload (payload_id INT NOT NULL, size INT NOT NULL, data MEDIUMBLOB NOT NULL, "
    "PRIMARY KEY (payload_id)) ENGINE=MyISAM;\n"
)
PROBE = "SELECT COUNT(*) FROM calib_payload"


def detector(key: int) -> str:
    """Name of the plane of a key."""
    return f"GM{key:03d}X1"


def write_dump(directory: Path, payload_bytes: int = PAYLOAD_BYTES, runs: int = RUNS) -> tuple[Path, Path]:
    """(dump, JSON file with the SHA-256 of each key's payload by run): incompressible, the same for the same seed."""
    chance = random.Random(SEED)  # noqa: S311
    sums: dict[str, list[str]] = {}
    dump, expected = directory / "calib.sql", directory / "expected.json"
    with dump.open("w", encoding="ascii") as file:
        file.write(_TABLES)
        for run in range(runs):
            found = []
            for key in range(KEYS):
                number, content = run * KEYS + key, chance.randbytes(payload_bytes)
                found.append(hashlib.sha256(content).hexdigest())
                row = f"'{detector(key)}','align',{FIRST_RUN + run},{FIRST_RUN + run + 1},1,{number}"
                file.write(f"INSERT INTO calib_iov VALUES ({row});\n")
                file.write(
                    f"INSERT INTO calib_payload VALUES ({number},{payload_bytes},0x{content.hex()});\n"
                )
            sums[str(FIRST_RUN + run)] = found
    expected.write_text(json.dumps(sums))
    return dump, expected
