"""Makes the rig of the unit tests importable here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "unit" / "pilot"))
