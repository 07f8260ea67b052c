"""Arms against arms, task by task: how many tasks each pair tells apart, and which way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atlas_tune.report.results import Results, TaskScores

_SAME = 1e-12
"""Means over seeds of equal counts differ in the last bits."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two arms on the tasks that both of them played."""

    higher: int
    """Tasks on which the arm of the row scores higher."""
    lower: int
    tasks: int

    @property
    def lead(self) -> float:
        """Higher less lower as a share of the tasks, from -1 to 1."""
        return (self.higher - self.lower) / self.tasks if self.tasks else 0.0


@dataclass(frozen=True, slots=True)
class Matrix:
    """All pairs of arms in one environment."""

    environment: str
    tasks: int
    arms: tuple[str, ...]
    rows: tuple[tuple[Pair | None, ...], ...]
    """A row an arm, a column an arm; None on the diagonal."""


def matrices(results: Results) -> list[Matrix]:
    """A matrix for each environment in which two arms or more were evaluated."""
    order = [arm.name for arm in results.arms]
    found = [_matrix(scores, order) for scores in results.task_scores]
    return [matrix for matrix in found if len(matrix.arms) > 1]


def _matrix(scores: TaskScores, order: Sequence[str]) -> Matrix:
    means = scores.by_arm
    arms = tuple(name for name in order if name in means)
    return Matrix(
        scores.environment,
        len(scores.tasks),
        arms,
        tuple(
            tuple(None if row == column else _pair(means[row], means[column]) for column in arms)
            for row in arms
        ),
    )


def _pair(row: Sequence[float | None], column: Sequence[float | None]) -> Pair:
    gaps = [a - b for a, b in zip(row, column, strict=True) if a is not None and b is not None]
    return Pair(sum(gap > _SAME for gap in gaps), sum(gap < -_SAME for gap in gaps), len(gaps))
