"""Sufficiency: what a run still returns when only some of its steps are played.

Necessity asks what is lost without one step; sufficiency asks what is left with a set of steps
alone. The recorded actions of these steps are played in their order, in the run's own task, and
nothing else: no model has part in it. A set that holds everything necessary, and what makes it
possible, keeps the whole return. Under a budget few sets can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from atlas_tune.select.auditing.resampling import DRAWS, Figure, bootstrapped, divided
from atlas_tune.select.replaying.playback import Environments, moves_of, play
from atlas_tune.trajectory import Trajectory

if TYPE_CHECKING:
    from atlas_tune.environments.base import TextEnv

Steps = Mapping[str, frozenset[int]]
"""By trajectory, the steps that are played."""


@dataclass(frozen=True, slots=True)
class Played:
    """The end of a replay."""

    reward: float
    """The return: the sum of the rewards, on the environment's scale."""
    success: bool


@dataclass(frozen=True, slots=True)
class Sufficiency:
    """What the steps of a selection return when they alone are played."""

    reward: Figure
    """Mean return over the runs."""
    success: Figure
    """The share of runs that succeed."""
    control_reward: Figure | None
    """The same of the controls, over all their draws; None where there are none."""
    control_success: Figure | None
    reward_gain: Figure | None
    """Over the controls, run by run."""
    success_gain: Figure | None


class Replays:
    """Plays steps of runs; the same steps of a run are played once."""

    def __init__(
        self, make_environment: Callable[[str], TextEnv], runs: Sequence[Trajectory]
    ) -> None:
        """``make_environment`` builds an environment by name; each is built once and kept."""
        self._environments = Environments(make_environment)
        self._runs = {run.trajectory_id: run for run in runs}
        self._known: dict[tuple[str, frozenset[int]], Played] = {}

    def of(self, key: str, steps: frozenset[int]) -> Played:
        """The end of a run of which only these steps are played.

        Raises:
            CannotLabel: its actions cannot be read, or there is no such environment.
            UsageError: the run names no task that can be played.
        """
        if (key, steps) not in self._known:
            run = self._runs[key]
            moves = [move for move in moves_of(run) if move.step_id in steps]
            played = play(self._environments.of(run), run, moves)
            self._known[key, steps] = Played(played.reward, played.success)
        return self._known[key, steps]


def sufficiency(
    replays: Replays,
    steps: Steps,
    controls: Sequence[Steps] = (),
    draws: int = DRAWS,
    seed: int = 0,
) -> Sufficiency:
    """Play the steps alone, and those of each draw of a control, in the same runs.

    The interval is of the bootstrap by trajectory; a run counts with the mean of its draws.

    Args:
        replays: plays them.
        steps: of the selection, by run.
        controls: draws of a matched random set, each of the same runs.
        draws: of the bootstrap.
        seed: of the bootstrap.
    """
    rows = []
    for key in sorted(steps):
        own = replays.of(key, steps[key])
        lots = [replays.of(key, control[key]) for control in controls]
        rows.append(
            [
                1.0,
                own.reward,
                float(own.success),
                float(np.mean([lot.reward for lot in lots])) if lots else 0.0,
                float(np.mean([lot.success for lot in lots])) if lots else 0.0,
            ]
        )
    rows_N5 = np.array(rows)

    def mean(place: int, less: int | None = None) -> Figure:
        def statistic(c: np.typing.NDArray[np.float64]) -> np.typing.NDArray[np.float64]:
            above = c[..., place] if less is None else c[..., place] - c[..., less]
            return divided(above, c[..., 0])

        return bootstrapped(rows_N5, statistic, draws, seed)

    return Sufficiency(
        reward=mean(1),
        success=mean(2),
        control_reward=mean(3) if controls else None,
        control_success=mean(4) if controls else None,
        reward_gain=mean(1, less=3) if controls else None,
        success_gain=mean(2, less=4) if controls else None,
    )
