"""Bootstrap intervals over tasks.

They are percentile intervals. BCa (Efron 1987) corrects for skew, but its bias correction is
undefined when few values differ from zero, which is the rule for paired successes, and for a mean
over tasks the two hardly differ. The percentile form is too narrow by about sqrt((T - 1) / T).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from atlas_tune.evaluate.statistics.differences import Array, as_matrix

DRAWS = 10_000
_AT_ONCE = 4_000_000
"""Counts held at once: 32 MB, however many tasks there are."""


def bootstrap_difference(
    differences: ArrayLike, confidence: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean paired difference, resampling whole tasks.

    ``differences`` has shape ``(S, T)`` or ``(T,)``, NaN where missing. A drawn task brings all
    its seeds (the cluster bootstrap, Davison and Hinkley 1997, section 3.8), so more seeds do not
    pass for more tasks. It speaks of new tasks and of *these* trained models only; for new
    trainings see ``bootstrap_crossed``.

    Raises:
        ValueError: there is no pair.
    """
    matrix_ST = as_matrix(differences)
    sums_T, held_T = np.nansum(matrix_ST, axis=0), (~np.isnan(matrix_ST)).sum(axis=0)
    generator = np.random.default_rng(seed)
    means = []
    for some in portions(draws, len(sums_T)):
        counts_BT = resampled(generator, some, len(sums_T))
        means.append((counts_BT @ sums_T) / (counts_BT @ held_T))
    return percentiles(np.concatenate(means), confidence)


def resampled(generator: np.random.Generator, draws: int, items: int) -> Array:
    """How often each item is drawn, shape ``(draws, items)``; each row sums to ``items``."""
    drawn = generator.integers(0, items, (draws, items))
    drawn += np.arange(draws)[:, None] * items
    counts = np.bincount(drawn.ravel(), minlength=draws * items).reshape(draws, items)
    return counts.astype(float)


def portions(draws: int, items: int) -> list[int]:
    """Numbers of draws small enough to be held at once, together ``draws``.

    Raises:
        ValueError: there is not even one draw.
    """
    if draws < 1:
        raise ValueError(f"A bootstrap needs at least one draw, not {draws}.")
    size = max(1, _AT_ONCE // items)
    return [min(size, draws - begun) for begun in range(0, draws, size)]


def percentiles(values_B: Array, confidence: float) -> tuple[float, float]:
    """The middle ``confidence`` of the draws.

    Raises:
        ValueError: the confidence is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"A confidence lies between 0 and 1; {confidence} does not.")
    tail = (1 - confidence) / 2
    low, high = np.quantile(values_B, [tail, 1 - tail])
    return float(low), float(high)
