"""Intervals of one success rate."""

from __future__ import annotations

from scipy.stats import binomtest


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
