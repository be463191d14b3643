"""A configuration whose batch jobs cannot be written is refused at the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.config import parse_config
from pilot.rotation.wiring import WiringError, make_limits

ROOT = Path(__file__).parents[4]


def limits_of(profile: str, *changes: tuple[str, str]) -> object:
    text = (ROOT / f"pilot/sites/{profile}.yaml").read_text()
    for old, new in (("@BASE@", "/base"), ("@PYTHON@", "/usr/bin/python3"), *changes):
        assert old in text
        text = text.replace(old, new)
    return make_limits(parse_config(text, profile), Path("/agent"), once=False)


@pytest.mark.parametrize("profile", sorted(path.stem for path in (ROOT / "pilot/sites").glob("*.yaml")))
def test_every_profile_gives_batch_jobs_that_its_dialect_can_write(profile: str) -> None:
    limits_of(profile)


@pytest.mark.parametrize(
    ("profile", "change", "words"),
    [
        ("slurm", ("  account: null", "  flags: commtransparent\n  account: null"), "Moab"),
        ("slurm", ("shared_dir: /base/shared", "shared_dir: /base/a b"), "stdout"),
        ("torque", ("shared_dir: /base/shared", 'shared_dir: "/base/a$b"'), "stdout"),
        ("openpbs", ("shared_dir: /base/shared", 'shared_dir: "/base/a,b"'), "stdout"),
    ],
)
def test_what_no_script_can_carry_is_told_before_anything_is_done(
    profile: str, change: tuple[str, str], words: str
) -> None:
    with pytest.raises(WiringError, match=words):
        limits_of(profile, change)
