"""The score test of a mean difference, which knows what few observations cannot show.

A t test estimates its spread from the tasks. Where two of a hundred tasks differ, and both one way,
that spread is nearly nothing, and the test is sure of a mean that it cannot know: differences as
large as the hypothesis says may just not have been met. The score test takes the spread that the
hypothesis itself implies.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from atlas_tune.evaluate.statistics.differences import Array


def score_p_value(values_T: Array, least: float, lowest: float = -1.0) -> float:
    """The p-value of "the mean is at most ``least``", one-sided; 1/2 or more is told as 1/2.

    The spread is that of the likeliest distribution whose mean is ``least``: one over the values
    observed, and over the lowest that there can be, which may just not have been met. For paired
    successes (values -1, 0, 1) this is Tango's score test (Statistics in Medicine 17:891-908,
    1998); for graded scores it is the same with the empirical likelihood (Owen, *Empirical
    Likelihood*, 2001) in the place of the multinomial one.

    Args:
        values_T: by task, T of them.
        least: above the lowest value.
        lowest: that there can be; where a lower one was observed, that.
    """
    mean = float(values_T.mean())
    if mean <= least:
        return 0.5
    spread = _likeliest_variance(values_T, least, min(lowest, float(values_T.min())))
    return float(norm.sf((mean - least) / np.sqrt(spread / len(values_T))))


def _likeliest_variance(values_T: Array, mean: float, lowest: float) -> float:
    """The variance of the likeliest distribution of this mean, which is below the observed one."""
    # Observed values have the weights 1 / (T (1 + tilt (value - mean))). The lowest one, where it
    # is not observed, takes what is left once the tilt is as large as it may be.
    away_T = values_T - mean
    most = 1 / (mean - lowest)

    def moment(tilt: float) -> float:
        with np.errstate(divide="ignore"):  # of a value that lies next to the lowest
            return float((away_T / (1 + tilt * away_T)).sum())

    unmet = bool(values_T.min() > lowest)
    inside = not unmet or moment(most) < 0
    tilt = float(brentq(moment, 0.0, most * (1 - 1e-12))) if inside else most
    weights_T = 1 / (len(values_T) * (1 + tilt * away_T))
    left = max(0.0, 1 - float(weights_T.sum()))
    return float((weights_T * away_T**2).sum()) + left * (lowest - mean) ** 2


def lower_score_limit(values_T: Array, level: float, lowest: float = -1.0) -> float:
    """The highest mean below which everything is rejected at ``level``, one-sided.

    Of successes, 0 or 1, and with ``lowest`` 0 it is the lower end of Wilson's interval (1927).
    """
    lowest = min(lowest, float(values_T.min()))
    low, high = lowest + 1e-9, float(values_T.mean()) - 1e-12
    if high <= low or score_p_value(values_T, low, lowest) >= level:
        return lowest
    return float(brentq(lambda least: score_p_value(values_T, least, lowest) - level, low, high))
