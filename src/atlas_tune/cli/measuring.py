"""``audit --measure``: measured criticality of selections, as a page, as JSON and on screen."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas_tune.cli.options import keep_rejected, read_runs, tell, tell_rejected
from atlas_tune.errors import UsageError, nearest
from atlas_tune.progress import ticking

if TYPE_CHECKING:
    from atlas_tune.select.auditing.measurement import Measurement
    from atlas_tune.select.auditing.places import Player
    from atlas_tune.select.auditing.taken import Taken

RECORD = "criticality.json"
PRECISIONS = ("bfloat16", "float32")


@dataclass(frozen=True, slots=True)
class Measuring:
    """The options of ``audit`` that only ``--measure`` has; None where they were not given."""

    policy: str | None = None
    rollouts: int | None = None
    temperature: float | None = None
    max_new_tokens: int | None = None
    batch_size: int | None = None
    precision: str | None = None
    most: int | None = None
    controls: int | None = None
    dry_run: bool = False

    def check(self, directory: Path | None) -> None:
        """Refuse what has no meaning.

        Raises:
            UsageError: an option without ``--measure`` or ``--policy``, or several rollouts that
                are all the same.
        """
        if directory is None:
            for name, value in asdict(self).items():
                if value not in (None, False):
                    raise UsageError(f"{_option(name)} is for --measure DIR: name one.")
            return
        if self.policy is None:
            for name in ("rollouts", "temperature", "max_new_tokens", "batch_size", "precision"):
                if getattr(self, name) is not None:
                    raise UsageError(
                        f"{_option(name)} is for a policy: name one with --policy MODEL."
                    )
        if (self.rollouts or 1) > 1 and not self.temperature:
            raise UsageError(
                "Greedy rollouts from one place are all the same: give --temperature (such as "
                "0.7), or leave out --rollouts."
            )
        if self.precision is not None and self.precision not in PRECISIONS:
            known = nearest(self.precision, PRECISIONS)
            raise UsageError(f"There is no precision '{self.precision}': {known}")

    def check_alone(self, **others: object) -> None:
        """Refuse the options of the other kinds of audit, which measure nothing.

        Raises:
            UsageError: one of them is given.
        """
        for name, value in others.items():
            if value is not None:
                raise UsageError(
                    f"{_option(name)} is for an audit without --measure: leave one of them out."
                )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def measure_criticality(
    files: Sequence[str],
    runs: Path | None,
    directory: Path,
    options: Measuring,
    draws: int,
    seed: int,
    as_json: bool,
) -> None:
    """Measure selections and write ``criticality.json`` and ``index.html`` into a directory.

    Args:
        files: selection files, or labels sidecars.
        runs: the trajectories that they were selected from.
        directory: also keeps what was measured, so that a killed measurement goes on.
        options: how.
        draws: of the bootstrap.
        seed: of bootstrap and controls.
        as_json: whether the record is printed.

    Raises:
        UsageError: no runs, no selection, or two of one file.
        AtlasError: a file is bad, or nothing can be measured.
    """
    if runs is None:
        raise UsageError("Criticality is measured by playing runs: name them with --runs.")
    if not files:
        raise UsageError("Name the selection files to measure.")
    from atlas_tune.environments import make_environment
    from atlas_tune.select.auditing.matched_sets import CountedOnce
    from atlas_tune.select.auditing.measured import measure
    from atlas_tune.select.auditing.measurement import Measurement
    from atlas_tune.select.controls.step_tokens import Characters
    from atlas_tune.trajectory.quarantine import Rejected

    taken = _taken(files)
    trajectories, rejected = read_runs(runs)
    measurement = Measurement(
        taken,
        trajectories,
        make_environment,
        directory,
        Characters() if options.policy is None else CountedOnce(options.policy),
        _player(options),
        options.most,
        5 if options.controls is None else options.controls,
        draws,
        seed,
    )
    if options.dry_run:
        return _tell_work(measurement, as_json)
    with ticking("measure") as tick:
        found = measure(measurement, tick)
    from atlas_tune.report.criticality import write_criticality

    record = {"made": _made(runs), **asdict(found)}
    page = write_criticality(record, directory)
    if as_json:
        print((directory / RECORD).read_text("utf-8"), end="")
    else:
        from atlas_tune.cli.audit_tables import tell_criticality

        tell_criticality(found)
        print(f"\nThe page: {page}")
    missing = [
        Rejected(str(runs), 0, 0, f"{what}: {one.reason}", one.trajectory_id)
        for what, several in (
            ("not measured", found.left_out),
            ("not started inside", found.not_started),
        )
        for one in several
    ]
    tell_rejected(missing)
    keep_rejected(directory / RECORD, [*rejected, *missing])


def _taken(files: Sequence[str]) -> list[Taken]:
    """The selections, by the shortest names that tell them apart."""
    from atlas_tune.select.auditing.taken import read_taken

    if len(set(files)) < len(files):
        raise UsageError("A selection is named twice: leave one out.")
    short = [Path(file).name.removesuffix(".jsonl") for file in files]
    names = short if len(set(short)) == len(short) else list(files)
    return [read_taken(file, name) for file, name in zip(files, names, strict=True)]


def _player(options: Measuring) -> Player | None:
    if options.policy is None:
        return None
    from atlas_tune.agents.local_model import model_digest, resolve_model
    from atlas_tune.agents.making import LocalPolicies
    from atlas_tune.select.auditing.places import Player

    place = resolve_model(options.policy)
    max_new_tokens = options.max_new_tokens or 256
    precision = options.precision or "float32"
    return Player(
        LocalPolicies(place, max_new_tokens, precision),
        {
            "model": model_digest(place),
            "max_new_tokens": max_new_tokens,
            "precision": precision,
        },
        name=options.policy,
        temperature=options.temperature or 0.0,
        rollouts=options.rollouts or 1,
        batch_size=options.batch_size or 32,
    )


def _tell_work(measurement: Measurement, as_json: bool) -> None:
    from atlas_tune.select.auditing.measurement import work_of

    work = asdict(work_of(measurement))
    sentence = (
        "{trajectories} runs: at most {env_steps} recorded actions to play again, and at most "
        "{rollouts} rollouts of a policy"
    )
    if measurement.player is None:
        sentence += " at one from each place, if one is named with --policy"
    else:
        sentence += ", of which {on_file} are on file"
    tell(work, as_json, sentence)


def _made(runs: Path) -> dict[str, Any]:
    """When, of what and with which command; what a figure needs to be made again."""
    from atlas_tune import __version__

    return {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["atlas-tune", *sys.argv[1:]]),
        "version": __version__,
        "runs": str(runs),
    }
