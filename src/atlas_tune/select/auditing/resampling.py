"""Figures with intervals by resampling whole trajectories.

The steps of one run are not independent: drawing steps would make the intervals too narrow, so
trajectories are drawn (the cluster bootstrap; Davison and Hinkley 1997, section 3.8).

A figure that is not defined is None with the reason, never 0 and never nan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
CONFIDENCE = 0.95
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its interval; ``why`` tells why one of them is missing."""

    value: float | None
    low: float | None = None
    high: float | None = None
    why: str | None = None
    lost_draws: int = 0
    """Draws of the bootstrap in which the figure was undefined; the interval is of the others."""


def bootstrapped(
    clusters: NDArray[Any],
    statistic: Callable[[Array], Array],
    draws: int = DRAWS,
    seed: int = 0,
    why: str = "",
) -> Figure:
    """A statistic of the sum of clusters, with the percentile interval of drawing clusters anew.

    Args:
        clusters: counts (N, …) of each trajectory, in an order that the data decide.
        statistic: takes counts (…) with leading axes and gives nan where it is undefined.
        draws: how often N clusters are drawn with replacement.
        seed: of the draws.
        why: the reason to give where the statistic is undefined.
    """
    count = len(clusters)
    value = float(statistic(clusters.sum(axis=0)[None])[0]) if count else float("nan")
    if np.isnan(value):
        return Figure(None, why=why or "there is nothing to count")
    if count < 2:
        return Figure(value, why="one trajectory gives no interval")
    generator = np.random.default_rng(seed)
    flat = clusters.reshape(count, -1).astype(np.float64)
    drawn = np.empty((draws, flat.shape[1]))
    for number in range(draws):
        times = np.bincount(generator.integers(0, count, count), minlength=count)
        drawn[number] = times @ flat
    values = statistic(drawn.reshape(draws, *clusters.shape[1:]))
    values = values[~np.isnan(values)]
    lost = draws - len(values)
    if not len(values):
        return Figure(value, why="undefined in every draw of the bootstrap", lost_draws=lost)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Figure(value, float(low), float(high), lost_draws=lost)


def divided(above: Array, below: Array) -> Array:
    """A quotient; nan where it is over 0."""
    quotient: Array = np.full(np.shape(below), np.nan)
    np.divide(above, below, out=quotient, where=below != 0)
    return quotient
