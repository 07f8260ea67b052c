"""Our environment server as a process of its own, for tests that talk to it or kill it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Self


class ServedEnvironment:
    """``atlas-tune serve-env`` on a free port, from ``with`` to its end."""

    def __init__(self, name: str, *arguments: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "atlas_tune", "serve-env", name, "--port", str(port)]
        # A script that is started in the background ignores Ctrl-C, and so would its children.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.communicate()

    def interrupt(self) -> tuple[int, str]:
        """Press Ctrl-C; returns the exit code and what it wrote to standard error."""
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors
