"""Starts the real programs: nodes on ports that the system picks, and the client."""

import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

from webdriver import PATIENCE

REPOSITORY = Path(__file__).resolve().parent.parent
WWW = REPOSITORY / "www"


def program(name: str) -> Path:
    """The built program: from the environment (RELAY_NODE, RELAY_CLIENT), or the newest of the target directory."""
    if chosen := os.environ.get(name.upper().replace("-", "_")):
        return Path(chosen)
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    built = [path for kind in ("debug", "release") if (path := target / kind / name).exists()]
    if not built:
        raise FileNotFoundError(f"{name} is not built; run: cargo build -p {name}")
    return max(built, key=lambda path: path.stat().st_mtime)


class Node:
    """One relay-node process on loopback. Use it in a `with` statement, or close it."""

    def __init__(self, *arguments, root=WWW):
        command = [program("relay-node"), "0", "--root", root, *arguments]
        # Settings of whoever runs the tests must not reach the node under test.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
        # The node's key and what clients remember stay beside the build.
        environment["STATE_DIRECTORY"] = str(program("relay-node").parent / "test-state")
        self._lines = []
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.port = int(self.said(r"\b127\.0\.0\.1:([1-9]\d*)")[1])
        except BaseException:
            self.close()
            raise
        self.host_and_port = f"127.0.0.1:{self.port}"
        self.base = f"http://{self.host_and_port}/"

    def _read(self):
        for line in self._process.stdout:
            with self._news:
                self._lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._lines.append(None)
            self._news.notify_all()

    def said(self, pattern: str):
        """Waits until the node prints a line that matches, and returns the match."""
        end = time.monotonic() + PATIENCE
        seen = 0
        with self._news:
            while True:
                for line in self._lines[seen:]:
                    seen += 1
                    if line is None:
                        raise RuntimeError(f"the node ended without saying {pattern!r}:\n{self.log()}")
                    if match := re.search(pattern, line):
                        return match
                left = end - time.monotonic()
                if left <= 0 or not self._news.wait(left):
                    raise TimeoutError(f"the node has not said {pattern!r} within {PATIENCE:.0f} s:\n{self.log()}")

    def log(self) -> str:
        return "\n".join(line for line in self._lines if line is not None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the node as an operator would; a node that does not obey is a failure."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self._reader.join()
            self._process.stdout.close()


def have(name: str) -> bool:
    return shutil.which(name) is not None
