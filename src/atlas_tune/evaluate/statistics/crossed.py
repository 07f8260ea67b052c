"""Training seeds and tasks as two crossed random samples.

The question is about the method: what if one trained again, and evaluated on other tasks? Both
seeds and tasks are then samples, every task is met by every seed, and neither may count as more
observations than it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from atlas_tune.evaluate.statistics.bootstrap import DRAWS, percentiles, portions, resampled
from atlas_tune.evaluate.statistics.differences import as_matrix


@dataclass(frozen=True, slots=True)
class Crossed:
    """The mean paired difference with its standard error and degrees of freedom."""

    seeds: int
    tasks: int
    mean: float
    error: float
    """Zero where all cells are equal; NaN where there is one cell, which says nothing of spread."""
    freedom: float

    @property
    def p_value(self) -> float:
        """Two-sided p-value of no difference; 1 where the spread is unknown or zero."""
        if not self.error > 0:
            return 1.0
        return float(2 * student.sf(abs(self.mean) / self.error, self.freedom))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The t interval of the mean difference; infinite where there is one cell only."""
        if np.isnan(self.error):
            return float("-inf"), float("inf")
        reach = float(student.ppf((1 + confidence) / 2, self.freedom)) * self.error
        return self.mean - reach, self.mean + reach


def crossed(differences: ArrayLike) -> Crossed:
    """The mean of differences ``(S, T)`` (NaN where missing) over crossed seeds and tasks.

    The squared error is that of seeds plus that of tasks, each taken as if the other were fixed:
    ``sum_s r_s^2 S/(S-1) / N^2 + sum_t r_t^2 T/(T-1) / N^2``, where ``r`` sums the residuals of a
    seed or task and N counts cells. With all cells present its t squared is min F' (Clark,
    Journal of Verbal Learning and Verbal Behavior 12, 1973), with Satterthwaite's degrees of
    freedom (1946); with missing cells it is the two-way cluster variance (Cameron, Gelbach and
    Miller 2011) without the subtracted term. Leaving that term makes it too large rather than too
    small: what varies from cell to cell is counted twice. With one seed it is the paired t test
    over tasks.

    Raises:
        ValueError: there is no pair.
    """
    matrix_ST = as_matrix(differences)
    cells = int((~np.isnan(matrix_ST)).sum())
    mean = float(np.nanmean(matrix_ST))
    parts, frees = [], []
    for axis, size in ((1, matrix_ST.shape[0]), (0, matrix_ST.shape[1])):
        if size > 1:
            sums = np.nansum(matrix_ST - mean, axis=axis)
            parts.append(float(sums @ sums) / cells**2 * size / (size - 1))
            frees.append(size - 1)
    squared = sum(parts)
    # Residuals of equal cells are rounding errors, not spread.
    if parts and squared < 1e-24:
        squared, freedom = 0.0, float(sum(frees))
    elif parts:
        freedom = squared**2 / sum(p**2 / f for p, f in zip(parts, frees, strict=True))
    else:
        squared, freedom = float("nan"), 0.0
    return Crossed(matrix_ST.shape[0], matrix_ST.shape[1], mean, float(np.sqrt(squared)), freedom)


def bootstrap_crossed(
    differences: ArrayLike, confidence: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean difference, resampling seeds and tasks at once.

    This is the pigeonhole bootstrap (Owen, Annals of Applied Statistics 1, 2007): seeds and tasks
    are drawn with replacement independently, and a cell counts as often as its seed times its
    task. A missing cell counts never; a draw that meets no cell is left out.

    Known bias: the seeds' part of the variance comes out too small by (S - 1)/S, a third with
    3 seeds, and the percentiles know no t quantile, so where trainings differ much the interval
    covers too seldom; with one seed it is ``bootstrap_difference``. What varies from cell to cell
    counts up to three times (Owen's theorem), which errs the other way. Verdicts rest on
    ``crossed`` instead, whose degrees of freedom know how few the seeds are.

    Raises:
        ValueError: there is no pair.
    """
    matrix_ST = as_matrix(differences)
    seeds, tasks = matrix_ST.shape
    values_ST, held_ST = np.nan_to_num(matrix_ST), (~np.isnan(matrix_ST)).astype(float)
    generator = np.random.default_rng(seed)
    means = []
    for some in portions(draws, tasks):
        seeds_BS = resampled(generator, some, seeds)
        tasks_BT = resampled(generator, some, tasks)
        sums_B = np.einsum("bt,bt->b", seeds_BS @ values_ST, tasks_BT)
        cells_B = np.einsum("bt,bt->b", seeds_BS @ held_ST, tasks_BT)
        means.append(sums_B[cells_B > 0] / cells_B[cells_B > 0])
    return percentiles(np.concatenate(means), confidence)


@dataclass(frozen=True, slots=True)
class Spread:
    """Variances of a paired difference: between trainings, between tasks, and what is left."""

    seeds: float
    """Zero where there is one seed: not measured, not absent."""
    tasks: float
    cells: float

    def squared_error(self, seeds: int, tasks: int) -> float:
        """What ``crossed`` would find for its squared error with other numbers of both."""
        left = self.cells / (seeds * tasks)
        return self.seeds / seeds + self.tasks / tasks + (2 * left if seeds > 1 else left)


def spread(differences: ArrayLike) -> Spread:
    """Variance components of differences ``(S, T)`` from the two-way analysis of variance.

    The usual estimates by mean squares (Searle, Casella and McCulloch 1992, chapter 4); negative
    ones are zero. Missing cells are filled with row mean plus column mean less the whole mean, and
    the residual's degrees of freedom are those of the cells that are there: an approximation, good
    enough for planning. With one seed all spread is the tasks'.

    Raises:
        ValueError: there is no pair.
    """
    matrix_ST = as_matrix(differences)
    seeds, tasks = matrix_ST.shape
    mean = np.nanmean(matrix_ST)
    rows_S1, columns_T = np.nanmean(matrix_ST, axis=1, keepdims=True), np.nanmean(matrix_ST, axis=0)
    left_ST = np.nan_to_num(matrix_ST - rows_S1 - columns_T + mean)
    if seeds == 1:
        return Spread(0.0, float(np.var(columns_T, ddof=1)) if tasks > 1 else 0.0, 0.0)
    if tasks == 1:
        return Spread(float(np.var(rows_S1, ddof=1)), 0.0, 0.0)
    freedom = max(1, int((~np.isnan(matrix_ST)).sum()) - seeds - tasks + 1)
    cells = float((left_ST**2).sum()) / freedom
    of_seeds = max(0.0, float(np.var(rows_S1, ddof=1)) - cells / tasks)
    of_tasks = max(0.0, float(np.var(columns_T, ddof=1)) - cells / seeds)
    return Spread(of_seeds, of_tasks, cells)
