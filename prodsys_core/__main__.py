"""`python -m prodsys_core`."""

import sys

from prodsys_core.cli import main

sys.exit(main())
