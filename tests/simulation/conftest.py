"""The rig's jobs and limits serve the scenes too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "unit/pilot"))
