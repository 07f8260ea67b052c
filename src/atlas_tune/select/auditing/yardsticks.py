"""Yardsticks: runs of which somebody, or a measurement, says which steps mattered.

They are of two poles. Milestones and necessary steps are what a selector of critical steps should
find. Who&When's are *error* steps of failed runs, the opposite pole. What each of them holds and
cannot tell: docs/agreement.md. The data are read where they lie; none is part of atlas-tune.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from atlas_tune.errors import AtlasError, UsageError, nearest
from atlas_tune.select.auditing.ratings import CRITICAL, NONE, Rater
from atlas_tune.select.auditing.yardstick_runs import Marked, failed_run, necessity_run, web_run
from atlas_tune.trajectory import InvalidTrajectory, Trajectory
from atlas_tune.trajectory.compression import DAMAGE, open_bytes
from atlas_tune.trajectory.formats.reading import read_sources
from atlas_tune.trajectory.json_files import read_lines
from atlas_tune.trajectory.quarantine import Rejected

Polarity = Literal["critical", "error"]


@dataclass(frozen=True, slots=True)
class Yardstick:
    """Runs and what is known of their steps."""

    name: str
    what: str
    polarity: Polarity
    runs: tuple[Trajectory, ...]
    rater: Rater
    left_out: tuple[Rejected, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    folder: str
    what: str
    polarity: Polarity
    read: Callable[[Path, Callable[[Rejected], None]], Iterator[Marked]]


def load_yardstick(name: str, data: Path) -> Yardstick:
    """A yardstick by name; the second of two equal runs is left out.

    Args:
        name: one of :data:`YARDSTICK_NAMES`.
        data: the directory that holds ``yardsticks/``.

    Raises:
        UsageError: there is no such yardstick.
        AtlasError: its data are not there, or hold no run with marked steps.
    """
    if name not in _YARDSTICKS:
        raise UsageError(f"There is no yardstick '{name}': {nearest(name, _YARDSTICKS)}")
    known = _YARDSTICKS[name]
    path = data / "yardsticks" / known.folder
    if not path.exists():
        raise AtlasError(
            f"There is no {path}, where the yardstick '{name}' would be: name the directory that "
            "holds 'yardsticks' with --data or ATLAS_TUNE_DATA."
        )
    left_out: list[Rejected] = []
    found = {run.trajectory_id: (run, steps) for run, steps in known.read(path, left_out.append)}
    if not found:
        why = f" {left_out[0]}." if left_out else ""
        raise AtlasError(f"{path} holds no run whose steps the yardstick '{name}' marks.{why}")
    said = {
        key: {s.step_id: CRITICAL if s.step_id in steps else NONE for s in run.agent_steps}
        for key, (run, steps) in found.items()
    }
    return Yardstick(
        name,
        known.what,
        known.polarity,
        tuple(run for run, _ in found.values()),
        Rater(name, said),
        tuple(left_out),
    )


def score_rises(runs: Iterable[Trajectory], name: str = "progress") -> Rater:
    """A rater that calls a step critical where its own reward is above 0.

    A step without a recorded reward is not rated, nor is a run without any.
    """
    said: dict[str, dict[int, str]] = {}
    for run in runs:
        rewards = {step.step_id: step.reward for step in run.agent_steps}
        rated = {
            step_id: CRITICAL if reward > 0 else NONE
            for step_id, reward in rewards.items()
            if reward is not None
        }
        if rated:
            said[run.trajectory_id] = rated
    return Rater(name, said)


def _scienceworld(path: Path, reject: Callable[[Rejected], None]) -> Iterator[Marked]:
    for imported in read_sources([path], "scienceworld", reject):
        run = imported.trajectory
        rises = score_rises([run]).said.get(run.trajectory_id, {})
        yield run, frozenset(step_id for step_id, said in rises.items() if said == CRITICAL)


def _necessity(path: Path, reject: Callable[[Rejected], None]) -> Iterator[Marked]:
    for line in read_lines(path, reject):
        try:
            yield necessity_run(line.value)
        except InvalidTrajectory as error:
            reject(Rejected(str(path), line.line, line.byte_offset, str(error)))


def _who_and_when(path: Path, reject: Callable[[Rejected], None]) -> Iterator[Marked]:
    for archive in sorted(path.glob("*.tar*")):
        for member, text in _members(archive):
            try:
                yield failed_run(json.loads(text), archive.name.partition(".")[0])
            except (ValueError, RecursionError, InvalidTrajectory) as error:
                reject(Rejected(f"{archive}:{member}", 0, 0, str(error)))


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    try:
        # Through open_bytes, which stops a decompression bomb; nothing is unpacked to disk.
        with tarfile.open(fileobj=open_bytes(archive), mode="r|") as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.name.endswith(".json") else None
                if stream is not None:
                    yield member.name, stream.read()
    except (tarfile.TarError, *DAMAGE) as error:
        raise AtlasError(f"{archive} cannot be read as an archive: {error}.") from error


def _webcanvas(path: Path, reject: Callable[[Rejected], None]) -> Iterator[Marked]:
    tasks = 0
    for file in sorted(path.glob("*.json*")):
        try:
            with open_bytes(file) as stream:
                records = json.load(stream)
        except (ValueError, RecursionError, *DAMAGE) as error:
            raise AtlasError(f"{file} cannot be read as JSON: {error}.") from error
        for number, record in enumerate(records if isinstance(records, list) else [records]):
            if isinstance(record, dict) and "step_list" not in record:
                tasks += 1
                continue
            try:
                yield web_run(record)
            except InvalidTrajectory as error:
                reject(Rejected(str(file), 0, 0, f"run {number}: {error}"))
    if tasks:
        reason = (
            f"{tasks} records are tasks without runs (no 'step_list'), so they have no step that "
            "could be marked: put WebCanvas's result files (out.json) there"
        )
        reject(Rejected(str(path), 0, 0, reason))


_YARDSTICKS = {
    "necessity": _Known(
        "necessity_6games.jsonl",
        "actions without which the rest of an ALFWorld run no longer wins (replayed)",
        "critical",
        _necessity,
    ),
    "scienceworld": _Known(
        "scienceworld-gold",
        "steps of gold paths at which ScienceWorld's own score rises",
        "critical",
        _scienceworld,
    ),
    "webcanvas": _Known(
        "webcanvas",
        "steps of web runs that reach a key node named by people",
        "critical",
        _webcanvas,
    ),
    "who-and-when": _Known(
        "who-and-when",
        "the decisive error step of failed runs, named by people",
        "error",
        _who_and_when,
    ),
}
YARDSTICK_NAMES = tuple(_YARDSTICKS)
