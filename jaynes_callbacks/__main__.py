"""``python -m jaynes_callbacks`` is ``jaynes``."""

import sys

from jaynes_callbacks.cli import main

if __name__ == "__main__":
    sys.exit(main())
