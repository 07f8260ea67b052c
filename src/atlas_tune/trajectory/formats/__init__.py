"""One file per source format: records in, trajectories out.

A format is a module with ``detect(record) -> bool`` and ``read(record) -> Trajectory``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from atlas_tune.errors import UsageError, nearest
from atlas_tune.trajectory.formats import agentgym, atif
from atlas_tune.trajectory.model import InvalidTrajectory, Trajectory
from atlas_tune.trajectory.store import Rejected, read_records


class Format(Protocol):
    """What a format's module offers."""

    def detect(self, record: Any) -> bool: ...

    def read(self, record: Any) -> Trajectory: ...


FORMATS: dict[str, Format] = {"atif": atif, "agentgym": agentgym}


def read_file(
    path: Path, format_name: str | None, reject: Callable[[Rejected], None]
) -> Iterator[Trajectory]:
    """The trajectories of a file; the format is told by each record's shape unless it is named.

    Raises:
        UsageError: no such format.
    """
    if format_name is not None and format_name not in FORMATS:
        raise UsageError(f"No format '{format_name}': {nearest(format_name, FORMATS)}")

    def parse(record: Any) -> Trajectory:
        if format_name is not None:
            return FORMATS[format_name].read(record)
        for reader in FORMATS.values():
            if reader.detect(record):
                return reader.read(record)
        raise InvalidTrajectory(
            f"no known format has this shape; known: {', '.join(FORMATS)} (force one with --format)"
        )

    return read_records(path, parse, reject)
