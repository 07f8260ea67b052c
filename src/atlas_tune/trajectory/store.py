"""Files of records: JSONL in and out, one record a line, nothing lost.

Lines are split on ``b"\\n"`` alone: ``str.splitlines`` also splits at U+2028, U+2029 and U+0085,
which JSON allows inside a string. A line that cannot be read goes to the quarantine with its
place and reason, and the rest is read on.
"""

from __future__ import annotations

import gzip
import json
import lzma
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from atlas_tune.errors import AtlasError
from atlas_tune.trajectory.labels import StepLabel, dump_label, parse_label
from atlas_tune.trajectory.model import (
    InvalidTrajectory,
    Trajectory,
    canonical_json,
    dump_trajectory,
)
from atlas_tune.trajectory.parse import parse_trajectory
from atlas_tune.trajectory.selection import Selection, dump_selection, parse_selection

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something that could not be used: where it stands and why.

    What was a good record and was left out later is told by its ``trajectory_id``, with line 0.
    ``byte_offset`` counts the bytes of the text, also where the file is compressed.
    """

    file: str
    line: int
    byte_offset: int
    reason: str
    trajectory_id: str | None = None

    def __str__(self) -> str:
        line = f", line {self.line}" if self.line else ""
        trajectory = f", trajectory {self.trajectory_id[:12]}" if self.trajectory_id else ""
        return f"{self.file}{line}{trajectory}: {self.reason}"


class BadRecord(AtlasError):
    """A record that a reader which must have all of them could not use."""


@dataclass(frozen=True, slots=True)
class Line:
    """One non-blank line of a JSONL file: its number (from 1), its place and its parsed value."""

    number: int
    byte_offset: int
    value: Any


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading, decompressing by its suffix (.gz, .xz).

    Raises:
        AtlasError: there is no such file.
    """
    if not path.is_file():
        raise AtlasError(f"There is no file {path}. Check the path, or make it first.")
    if path.suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.suffix == ".xz":
        return lzma.open(path, "rb")
    return path.open("rb")


def read_lines(path: Path, reject: Callable[[Rejected], None]) -> Iterator[Line]:
    """The JSON values of a JSONL file, streamed; blank lines are skipped, bad ones rejected.

    Handles a byte order mark, CRLF and a truncated last line. ``NaN`` and ``Infinity`` are
    refused, because they are not JSON.
    """
    for number, offset, raw in _raw_lines(path, reject):
        text = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
        text = text.strip(b" \t\r\n")
        if not text:
            continue
        try:
            value = json.loads(
                text.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite
            )
        except (ValueError, RecursionError) as error:
            cut = "" if raw.endswith(b"\n") else " (the file ends in the middle of this line)"
            reason = f"not JSON: {error or 'nested too deeply'}{cut}"
            reject(Rejected(str(path), number, offset, reason))
            continue
        yield Line(number, offset, value)


_DAMAGE = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error)
"""What decompression raises: nothing after that point can be read."""


def _raw_lines(path: Path, reject: Callable[[Rejected], None]) -> Iterator[tuple[int, int, bytes]]:
    """Number, byte offset and bytes of every line, as far as a compressed file is whole."""
    number, offset = 1, 0
    with open_bytes(path) as stream:
        while True:
            try:
                raw = stream.readline()
            except _DAMAGE as error:
                reason = (
                    f"the compressed file is damaged or cut off here ({error}), so this line and "
                    "what follows cannot be read: get the file again"
                )
                reject(Rejected(str(path), number, offset, reason))
                return
            if not raw:
                return
            yield number, offset, raw
            number, offset = number + 1, offset + len(raw)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _finite(text: str) -> float:
    """A number; one that overflows to infinity could not be written as JSON again."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def read_records(
    path: Path, parse: Callable[[Any], T], reject: Callable[[Rejected], None]
) -> Iterator[T]:
    """The records of a JSONL file that ``parse`` accepts; the others are rejected."""
    for line in read_lines(path, reject):
        try:
            yield parse(line.value)
        except (InvalidTrajectory, RecursionError) as error:
            # Deep nesting that the parser still bore can be too deep for what computes the id.
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            reject(Rejected(str(path), line.number, line.byte_offset, reason))


def read_trajectories(
    path: Path, reject: Callable[[Rejected], None] | None = None
) -> Iterator[Trajectory]:
    """The trajectories of a store, in order.

    Raises:
        BadRecord: a record is bad and no ``reject`` takes it.
    """
    return read_records(path, parse_trajectory, reject or refuse)


def read_labels(path: Path) -> Iterator[StepLabel]:
    """The labels of a sidecar, in the order in which they were made.

    Raises:
        BadRecord: a line is bad. Half a line that a kill left at the end is one: see
            :func:`cut_torn_line`.
    """
    return read_records(path, parse_label, refuse)


def read_selections(path: Path) -> dict[str, Selection]:
    """The selections of a file by trajectory id.

    Raises:
        BadRecord: a line is bad.
    """
    records = read_records(path, parse_selection, refuse)
    return {selection.trajectory_id: selection for selection in records}


def refuse(rejected: Rejected) -> None:
    """Raise a rejected record as an error, for files that must be whole."""
    raise BadRecord(str(rejected))


def write_trajectories(path: Path, trajectories: Iterable[Trajectory]) -> int:
    """Write a store, replacing it whole; returns how many were written."""
    return write_jsonl(path, (dump_trajectory(t) for t in trajectories))


def write_selections(path: Path, selections: Iterable[Selection]) -> int:
    """Write a selection file, replacing it whole; returns how many were written."""
    return write_jsonl(path, (dump_selection(s) for s in selections))


def append_labels(path: Path, labels: Iterable[StepLabel]) -> None:
    """Append labels to a sidecar and make sure that they are on disk."""
    append_jsonl(path, (dump_label(label) for label in labels))


def write_quarantine(path: Path, rejected: Iterable[Rejected]) -> int:
    """Write the list of rejected records; returns how many there are."""
    records = (asdict(one) for one in rejected)
    return write_jsonl(path, ({k: v for k, v in r.items() if v is not None} for r in records))


def write_jsonl(path: Path, records: Iterable[Any]) -> int:
    """Write records as JSONL through a temporary file, so that a kill leaves the old file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    count = 0
    try:
        with partial.open("w", encoding="ascii", newline="\n") as stream:
            for record in records:
                stream.write(canonical_json(record) + "\n")
                count += 1
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return count


def append_jsonl(path: Path, records: Iterable[Any]) -> None:
    """Append records as JSONL and sync them to disk.

    Where a kill has left half a line at the end, that half line is cut off first: its record was
    never acknowledged.
    """
    text = "".join(canonical_json(record) + "\n" for record in records)
    path.parent.mkdir(parents=True, exist_ok=True)
    cut_torn_line(path)
    with path.open("a", encoding="ascii", newline="\n") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def cut_torn_line(path: Path) -> None:
    """Remove a last line without a newline from an append-only file, if there is one."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    with path.open("rb+") as stream:
        end = stream.seek(0, os.SEEK_END)
        stream.seek(end - 1)
        if stream.read(1) == b"\n":
            return
        position = end
        while position > 0:
            size = min(65_536, position)
            position -= size
            stream.seek(position)
            newline = stream.read(size).rfind(b"\n")
            if newline >= 0:
                stream.truncate(position + newline + 1)
                return
        stream.truncate(0)
