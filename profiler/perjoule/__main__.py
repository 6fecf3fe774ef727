"""``python -m perjoule`` is the same as ``perjoule``."""

import sys

from perjoule.cli import main

sys.exit(main())
