"""Pipeline overhead over inference, and what losing a sensor saves: both as ratios from one run.

    python benchmarks/overhead.py [BUNDLE] [--frames N]
"""

from __future__ import annotations

import sys

from perception.cli.main import main

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if not arguments or arguments[0].startswith("-"):
        arguments = ["indoor-rgbd", *arguments]
    sys.exit(main(["bench", *arguments]))
