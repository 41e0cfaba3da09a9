"""What the `anysense` script runs: Ctrl-C is one line also while what a command needs is being imported."""

from __future__ import annotations

import contextlib
import os
import sys

_INTERRUPTED = 130


def main() -> int:
    """Run one command and return its exit status."""
    try:
        from perception.cli.main import main as run

        return run()
    except KeyboardInterrupt:  # before that one has begun, which has its own way to end
        with contextlib.suppress(AttributeError, OSError, ValueError):  # nobody can be told
            os.write(sys.stderr.fileno(), b"anysense: interrupted\n")
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
