"""``python -m faissbase`` is the command ``faissbase``."""

from __future__ import annotations

import sys

from faissbase.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
