"""How far selections take the same steps: Cohen's kappa and Jaccard's index of each pair."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from atlas_tune.select.auditing.agreement import cohen_kappa
from atlas_tune.select.auditing.resampling import DRAWS, Array, Figure, bootstrapped, divided
from atlas_tune.select.auditing.taken import Taken
from atlas_tune.trajectory import Trajectory


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two selections on the steps of the same runs."""

    one: str
    other: str
    both: int
    """Steps that both take."""
    either: int
    kappa: Figure
    """Agreement beyond chance on which steps to take; see docs/agreement.md."""
    jaccard: Figure
    """Steps that both take over steps that either takes."""


def overlaps(
    selections: Sequence[Taken], runs: Sequence[Trajectory], draws: int = DRAWS, seed: int = 0
) -> tuple[Overlap, ...]:
    """Every pair of selections, in their order, with intervals of the bootstrap by trajectory."""
    runs = sorted(runs, key=lambda run: run.trajectory_id)
    return tuple(
        _overlap(one, other, runs, draws, seed)
        for one, other in itertools.combinations(selections, 2)
    )


def _overlap(
    one: Taken, other: Taken, runs: Sequence[Trajectory], draws: int, seed: int
) -> Overlap:
    tables_N22 = np.array([_table(one, other, run) for run in runs], dtype=float)
    (both, only_one), (only_other, neither) = tables_N22.sum(axis=0)
    constant = [
        f"{taken.name} takes {'no step' if not count else 'every step'}"
        for taken, count in ((one, both + only_one), (other, both + only_other))
        if count in (0, both + only_one + only_other + neither)
    ]
    return Overlap(
        one.name,
        other.name,
        int(both),
        int(both + only_one + only_other),
        bootstrapped(tables_N22, cohen_kappa, draws, seed, "; ".join(constant)),
        bootstrapped(tables_N22, _jaccard, draws, seed, "neither takes a step"),
    )


def _table(one: Taken, other: Taken, run: Trajectory) -> list[list[int]]:
    key = run.trajectory_id
    first, second = one.steps[key], other.steps[key]
    both, either = len(first & second), len(first | second)
    neither = len(run.agent_steps) - either
    return [[both, len(first) - both], [len(second) - both, neither]]


def _jaccard(tables: Array) -> Array:
    both = tables[..., 0, 0]
    return divided(both, both + tables[..., 0, 1] + tables[..., 1, 0])
