"""The paper's Table 6, with controls: a policy started after the steps of a selection.

V(t) is the success (or return) of a policy that goes on after the first t recorded steps of a run.
For the step at place p of a run (from 1), "started after it" is V(p), "before it" V(p − 1), and the
*gain* is their difference: forced-action leverage, and the value jump of IPR (arXiv 2406.11176).
For a selection each is the mean over all of its steps, pooled over runs.

The later a policy starts, the nearer it is to the goal: V(p) rises with p whatever step p is. So
"after" is only to be read against steps at like positions, and even then the gain says more. The
controls are draws of as many steps of each run, matched in position and in tokens
(:mod:`atlas_tune.select.controls.matched`); the difference is paired run by run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from atlas_tune.select.auditing.places import Value, Values
from atlas_tune.select.auditing.resampling import DRAWS, Array, Figure, bootstrapped, divided
from atlas_tune.select.auditing.sufficiency import Steps
from atlas_tune.trajectory import Trajectory

_STEPS, _AFTER, _BEFORE, _LOT_AFTER, _LOT_BEFORE = range(5)


@dataclass(frozen=True, slots=True)
class Starts:
    """Success or return of a policy that is started around the steps of a selection."""

    after: Figure
    before: Figure
    gain: Figure
    """After minus before."""
    control_after: Figure
    """The same of the controls, over all their draws."""
    control_before: Figure
    control_gain: Figure
    after_difference: Figure
    """After the selected steps minus after those of the controls, in the same runs."""
    gain_difference: Figure


@dataclass(frozen=True, slots=True)
class Started:
    """A policy started around the steps of a selection."""

    steps: int
    success: Starts
    reward: Starts


@dataclass(frozen=True, slots=True)
class Baseline:
    """The same policy in the same tasks, started at their beginning."""

    success: Figure
    reward: Figure


def places_of(
    runs: Iterable[Trajectory], sets: Sequence[Mapping[str, frozenset[int]]]
) -> dict[str, set[int]]:
    """The places whose values are needed: the beginning, and around each step of each set."""
    found = {}
    for run in runs:
        steps = frozenset().union(*(one[run.trajectory_id] for one in sets))
        at = _at(run)
        found[run.trajectory_id] = {0} | {t for i in steps for t in (at[i] - 1, at[i])}
    return found


def _at(run: Trajectory) -> dict[int, int]:
    """How many agent steps are played when a step has been, by its id: 1 to T."""
    return {step.step_id: number for number, step in enumerate(run.agent_steps, start=1)}


def started(
    runs: Sequence[Trajectory],
    values: Values,
    steps: Steps,
    controls: Sequence[Steps],
    draws: int = DRAWS,
    seed: int = 0,
) -> Started:
    """The figures of a selection, with intervals of the bootstrap by trajectory.

    Args:
        runs: those that have values.
        values: of all places of :func:`places_of`.
        steps: of the selection.
        controls: at least one draw of as many steps of each run.
        draws: of the bootstrap.
        seed: of the bootstrap.
    """
    runs = sorted(runs, key=lambda run: run.trajectory_id)

    def starts(success: bool) -> Starts:
        def scale(value: Value) -> float:
            return value.success if success else value.reward

        rows_N5 = np.array(
            [_row(run, {t: scale(v) for t, v in values[run.trajectory_id].items()}) for run in runs]
        )
        return _starts(rows_N5, draws, seed)

    def _row(run: Trajectory, value: Mapping[int, float]) -> list[float]:
        key, at = run.trajectory_id, _at(run)
        after, before = _sums(steps[key], at, value)
        lots = [_sums(control[key], at, value) for control in controls]
        lot_after, lot_before = np.mean(lots, axis=0).tolist()
        return [float(len(steps[key])), after, before, lot_after, lot_before]

    return Started(sum(len(steps[r.trajectory_id]) for r in runs), starts(True), starts(False))


def _sums(
    steps: frozenset[int], at: Mapping[int, int], value: Mapping[int, float]
) -> tuple[float, float]:
    """The values after the steps, and those before them, each summed."""
    return (
        sum(value[at[i]] for i in sorted(steps)),
        sum(value[at[i] - 1] for i in sorted(steps)),
    )


def _starts(rows_N5: Array, draws: int, seed: int) -> Starts:
    def mean(*signed: tuple[int, int]) -> Figure:
        def statistic(c: Array) -> Array:
            above = sum((sign * c[..., place] for place, sign in signed), np.zeros(c.shape[:-1]))
            return divided(above, c[..., _STEPS])

        return bootstrapped(rows_N5, statistic, draws, seed, "no step is selected")

    return Starts(
        after=mean((_AFTER, 1)),
        before=mean((_BEFORE, 1)),
        gain=mean((_AFTER, 1), (_BEFORE, -1)),
        control_after=mean((_LOT_AFTER, 1)),
        control_before=mean((_LOT_BEFORE, 1)),
        control_gain=mean((_LOT_AFTER, 1), (_LOT_BEFORE, -1)),
        after_difference=mean((_AFTER, 1), (_LOT_AFTER, -1)),
        gain_difference=mean((_AFTER, 1), (_BEFORE, -1), (_LOT_AFTER, -1), (_LOT_BEFORE, 1)),
    )


def baseline(values: Values, draws: int = DRAWS, seed: int = 0) -> Baseline:
    """The mean value of the beginning, over runs."""
    beginnings = [values[key][0] for key in sorted(values)]

    def mean(numbers: Sequence[float]) -> Figure:
        rows_N2 = np.array([[number, 1.0] for number in numbers]).reshape(-1, 2)
        return bootstrapped(rows_N2, lambda c: divided(c[..., 0], c[..., 1]), draws, seed)

    return Baseline(
        success=mean([value.success for value in beginnings]),
        reward=mean([value.reward for value in beginnings]),
    )
