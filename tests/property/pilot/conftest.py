"""Makes the rig of the core importable for its property tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "unit/pilot"))
