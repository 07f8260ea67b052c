"""Whether two arms are the same for practical purposes: two one-sided tests (TOST)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from atlas_tune.evaluate.statistics.bootstrap import DRAWS
from atlas_tune.evaluate.statistics.crossed import bootstrap_crossed, crossed
from atlas_tune.evaluate.statistics.differences import as_matrix
from atlas_tune.evaluate.statistics.score import lower_score_limit, score_p_value


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Whether the mean difference lies within ``delta`` of nothing."""

    delta: float
    p_value: float | None
    """The larger of the two one-sided p-values; None for the bootstrap form, which has none."""
    interval: tuple[float, float]
    """At confidence 1 - 2 level: inside (-delta, delta) is what both tests rejecting means."""
    equivalent: bool


def tost(differences: ArrayLike, delta: float, level: float = 0.05) -> Equivalence:
    """Two one-sided tests of a mean difference (Schuirmann 1987) over crossed seeds and tasks.

    This is the form that verdicts use. Each side has to be rejected twice: by a t test, whose error
    knows how few the seeds are (see ``crossed``), and by a score test over the tasks' means, which
    knows how few of the tasks differ (see :mod:`.score`; for paired successes Liu, Hsueh, Hsieh
    and Chen, Statistics in Medicine 21:231-245, 2002).
    Values are success or reward within [0, 1]. Where no cell differs there is no spread to test
    by; then ``delta`` is held against the exact upper bound of the share of tasks that could
    differ, 1 - level^(1/T), as a mean difference cannot be larger (Clopper and Pearson 1934).
    Where all cells differ by the same amount, the same bound says how far the mean could lie from
    it: a task that differs otherwise moves it by at most 2. One task is treated so too, as seeds
    say nothing of how tasks differ.

    Raises:
        ValueError: there is no pair, or delta is not positive.
    """
    _check(delta)
    matrix_ST = as_matrix(differences)
    found = crossed(matrix_ST)
    if found.error > 0 and found.tasks > 1:
        means_T = np.nanmean(matrix_ST, axis=0)
        p_value = max(
            float(student.sf((found.mean + delta) / found.error, found.freedom)),
            float(student.cdf((found.mean - delta) / found.error, found.freedom)),
            score_p_value(means_T, -delta),
            score_p_value(-means_T, -delta),
        )
        low, high = found.interval(1 - 2 * level)
        low = min(low, lower_score_limit(means_T, level))
        high = max(high, -lower_score_limit(-means_T, level))
        return Equivalence(delta, p_value, (low, high), p_value < level)
    step = 1.0 if found.mean == 0 else 2.0
    unseen = step * (1 - level ** (1 / found.tasks))
    room = min(1.0, max(0.0, delta - abs(found.mean)) / step)
    p_value = (1 - room) ** found.tasks
    ends = (found.mean - unseen, found.mean + unseen)
    return Equivalence(delta, p_value, ends, p_value < level)


def tost_bootstrap(
    differences: ArrayLike, delta: float, level: float = 0.05, draws: int = DRAWS, seed: int = 0
) -> Equivalence:
    """The same by interval inclusion, with the two-level bootstrap at confidence 1 - 2 level.

    It assumes no shape of the distribution, but is too narrow with few seeds (see
    ``bootstrap_crossed``). Where no cell differs it has zero width, and nothing is claimed.

    Raises:
        ValueError: there is no pair, or delta is not positive.
    """
    _check(delta)
    matrix_ST = as_matrix(differences)
    low, high = bootstrap_crossed(matrix_ST, 1 - 2 * level, draws, seed)
    varied = bool(np.nanmax(matrix_ST) > np.nanmin(matrix_ST))
    return Equivalence(delta, None, (low, high), varied and -delta < low and high < delta)


def _check(delta: float) -> None:
    if not 0 < delta < float("inf"):
        raise ValueError(f"Equivalence needs a positive delta, in shares of one; it is {delta}.")
