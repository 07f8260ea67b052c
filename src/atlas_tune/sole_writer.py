"""One process at a time writes into a file or a run directory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atlas_tune.errors import AtlasError


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Hold a lock while writing a file, or into a directory that is there.

    A process that ends, however it ends, lets go of it. The lock of a file is a hidden one beside
    it, which stays: the file itself may be replaced while it is written.

    Raises:
        AtlasError: another process holds it.
    """
    locked = path if path.is_dir() else path.with_name(f".{path.name}.lock")
    if not locked.is_dir():
        locked.parent.mkdir(parents=True, exist_ok=True)
        locked.touch()
    held = os.open(locked, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AtlasError(
                f"Another process is writing {path}: wait for its end, or write elsewhere."
            ) from error
        yield
    finally:
        os.close(held)
