"""Intervals of one model's scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from atlas_tune.evaluate.statistics.crossed import crossed
from atlas_tune.evaluate.statistics.differences import as_matrix
from atlas_tune.evaluate.statistics.score import lower_score_limit


def wilson_interval(successes: int, tasks: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a success rate (Wilson 1927), as two shares of one.

    Unlike the normal approximation it stays inside [0, 1] and is of use at 0 of n.

    Raises:
        ValueError: there is no task, or more successes than tasks.
    """
    interval = binomtest(successes, tasks).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def clopper_pearson_interval(
    successes: int, tasks: int, confidence: float = 0.95
) -> tuple[float, float]:
    """The exact interval of Clopper and Pearson (Biometrika 26, 1934), as two shares of one.

    It covers at least as often as it promises, whatever the rate, and is wider than Wilson's.

    Raises:
        ValueError: there is no task, or more successes than tasks.
    """
    interval = binomtest(successes, tasks).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def score_interval(
    values: ArrayLike, least: float = 0.0, most: float = 1.0, confidence: float = 0.95
) -> tuple[float, float]:
    """An interval of the mean score over training seeds and tasks.

    It holds two: the t interval of ``crossed``, which knows how few the seeds are, and the score
    interval over the tasks' means, which knows what few tasks cannot show. So it has a width where
    all scores are the same, and it is Wilson's where one seed solved none or all of its tasks.

    Args:
        values: ``(S, T)`` or ``(T,)``, NaN where missing.
        least: the lowest score that there can be.
        most: the highest.
        confidence: of the interval.

    Raises:
        ValueError: there is no score.
    """
    matrix_ST = as_matrix(values)
    means_T, tail = np.nanmean(matrix_ST, axis=0), (1 - confidence) / 2
    low, high = crossed(matrix_ST).interval(confidence)
    low = min(low, lower_score_limit(means_T, tail, least))
    high = max(high, -lower_score_limit(-means_T, tail, -most))
    return max(low, least), min(high, most)
