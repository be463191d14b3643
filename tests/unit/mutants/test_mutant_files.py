"""Every mutant can be applied to the tree as it stands, and its test is there. `make mutants` runs them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from run_mutants import Mutant, load_mutants, problem


@pytest.mark.parametrize("mutant", load_mutants(), ids=lambda mutant: mutant.name)
def test_each_mutant_fits_the_tree(mutant: Mutant) -> None:
    assert problem(mutant) is None
    assert mutant.breaks.endswith(".")
    assert mutant.find != mutant.replace
