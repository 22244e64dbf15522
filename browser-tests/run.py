#!/usr/bin/env python3
"""Looks at a real node with a real browser.

    browser-tests/run.py [-v] [NAME…]     all tests, or those whose name contains one of NAME

Needs Chromium, chromedriver, curl, and built programs (cargo build -p relay-node -p relay-client).
Without the first three it says so and skips, unless CI=true makes that a failure.
"""

import os
import sys
import unittest
from pathlib import Path

from node import have, program

NEEDED = {"chromedriver": "chromium-driver", "chromium": "chromium", "curl": "curl"}


def main() -> int:
    missing = [package for name, package in NEEDED.items() if not have(name)]
    if missing:
        print(f"browser tests SKIPPED: not installed: {', '.join(missing)} (names of Debian packages)", file=sys.stderr)
        return 1 if os.environ.get("CI") == "true" else 0
    try:
        for name in ("relay-node", "relay-client"):
            print(f"{name}: {program(name)}", file=sys.stderr)
    except FileNotFoundError as missing_program:
        print(f"browser tests: {missing_program}", file=sys.stderr)
        return 1
    arguments = ["--verbose", *(f"-k{name}" for name in sys.argv[1:] if not name.startswith("-"))]
    here = str(Path(__file__).resolve().parent)
    suite = unittest.main(module=None, argv=["run.py", "discover", "-s", here, *arguments], exit=False)
    if suite.result.testsRun == 0:
        print("browser tests: no test has such a name", file=sys.stderr)
        return 1
    return 0 if suite.result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
