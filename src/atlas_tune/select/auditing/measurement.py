"""What is to be measured of selections, on which runs, and how much work that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from atlas_tune.errors import AtlasError
from atlas_tune.select.auditing.matched_sets import Control, Tokens, countable, matched_sets
from atlas_tune.select.auditing.places import Player, read_known, wanted_names
from atlas_tune.select.auditing.resampling import DRAWS
from atlas_tune.select.auditing.started import places_of
from atlas_tune.select.auditing.taken import Taken, check_steps_exist
from atlas_tune.trajectory import Trajectory

if TYPE_CHECKING:
    from atlas_tune.environments.base import TextEnv

ROLLOUTS = "rollouts.jsonl"


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is to be measured, and how exactly."""

    selections: Sequence[Taken]
    runs: Sequence[Trajectory]
    make_environment: Callable[[str], TextEnv]
    directory: Path
    """Where labels and rollouts are kept, so that a killed measurement goes on."""
    tokens: Tokens
    """Counts the tokens that controls match."""
    player: Player | None = None
    most: int | None = None
    """The most runs to measure; None for all."""
    controls: int = 5
    """Draws of matched random steps for each selection."""
    draws: int = DRAWS
    """Of the bootstrap."""
    seed: int = 0
    """Of bootstrap and controls."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a measurement would take."""

    trajectories: int
    env_steps: int
    """Recorded actions that are played again, at most."""
    rollouts: int
    """Of the policy, at most; at one from each place where no policy is named."""
    on_file: int
    """Those of them that are there already."""


@dataclass(frozen=True, slots=True)
class Common:
    """The runs that are measured, and how many are not."""

    runs: Sequence[Trajectory]
    not_selected: int
    """Runs that not every selection has."""
    beyond: int
    """Runs beyond the most."""


def common_runs(measurement: Measurement) -> Common:
    """The runs that every selection has, so that selections are compared on the same runs.

    Of more than ``most``, those with the lowest ids are taken. Ids are hashes, so that is a draw
    by lot which no order of a file decides, and a smaller one is part of a larger one.

    Raises:
        AtlasError: no run is in all selections, or a selection names a step that is none.
    """
    check_steps_exist(measurement.selections, measurement.runs)
    runs = {run.trajectory_id: run for run in measurement.runs}
    common = [
        runs[key] for key in sorted(runs) if all(key in one.steps for one in measurement.selections)
    ]
    if not common:
        raise AtlasError(
            "No run is in every selection: name the runs from which all of them were selected, or "
            "select again."
        )
    kept = common[: measurement.most]
    return Common(kept, len(runs) - len(common), len(common) - len(kept))


def work_of(measurement: Measurement) -> Work:
    """Count what :func:`measure` would do, without playing or writing anything.

    Raises:
        AtlasError: see :func:`common_runs`.
    """
    runs, _ = countable(common_runs(measurement).runs, measurement.tokens)
    controls = controls_of(measurement, runs)
    player = measurement.player
    sets = sets_of(measurement, controls)
    places = places_of(runs, sets)
    names = wanted_names(places, {}, 1 if player is None else player.rollouts)
    known = (
        {}
        if player is None
        else read_known(measurement.directory / ROLLOUTS, player.digest, mend=False)
    )
    lengths = [len(run.agent_steps) for run in runs]
    played = sum(
        len(one[run.trajectory_id]) for one in sets_of(measurement, controls) for run in runs
    )
    return Work(
        trajectories=len(runs),
        # Every run whole for necessity and for the score, and once without each of its steps.
        env_steps=sum(length * (length + 1) for length in lengths) + played,
        rollouts=len(names),
        on_file=sum(name in known for name in names),
    )


def controls_of(measurement: Measurement, runs: Sequence[Trajectory]) -> list[Control]:
    """The draws that match each selection, over these runs."""
    return [
        matched_sets(taken, runs, measurement.tokens, measurement.controls, measurement.seed)
        for taken in measurement.selections
    ]


def sets_of(
    measurement: Measurement, controls: Sequence[Control]
) -> list[Mapping[str, frozenset[int]]]:
    """All sets of steps that are looked at: the selections and every draw of their controls."""
    own = [taken.steps for taken in measurement.selections]
    return [*own, *(drawn for control in controls for drawn in control.sets)]
