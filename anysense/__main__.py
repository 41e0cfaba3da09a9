"""`python -m anysense`: the `anysense` command."""

from __future__ import annotations

import sys

from perception.cli.start import main

if __name__ == "__main__":
    sys.exit(main())
