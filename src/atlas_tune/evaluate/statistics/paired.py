"""Exact paired tests on the same tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom, binomtest, permutation_test

Verdict = Literal["better", "worse", "cannot tell"]


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Two arms on the same tasks: only tasks on which they differ carry information."""

    tasks: int
    wins: int
    losses: int
    p_value: float
    verdict: Verdict

    @property
    def ties(self) -> int:
        """Tasks on which the arms do not differ."""
        return self.tasks - self.wins - self.losses


def sign_p_value(wins: int, losses: int, mid: bool = False) -> float:
    """The two-sided p-value of wins and losses that are fair coins under no difference.

    ``mid`` counts only half of the probability of what was observed (Lancaster 1961; for McNemar
    Fagerland, Lydersen and Laake, BMC Medical Research Methodology 13:91, 2013).
    """
    discordant = wins + losses
    if not discordant:
        return 1.0
    exact = float(binomtest(wins, discordant, 0.5).pvalue)
    if not mid:
        return exact
    here = float(binom.pmf(wins, discordant, 0.5))
    # Where wins equal losses both tails meet in one outcome, which must not be taken off twice.
    return exact - (here / 2 if wins == losses else here)


FEW = 20
"""So many differences have a million patterns of signs, which can all be counted."""
_BY_LOT = 9_999
"""Patterns of signs that are drawn where there are more differences."""
_AT_ONCE = 4_000_000
"""Differences held at once: 32 MB, however many there are."""


def sign_flips(differences: ArrayLike) -> float:
    """The two-sided p-value of paired differences under random signs.

    Were the two alike, each difference could as well have had the other sign (Fisher, *The Design
    of Experiments*, 1935, section 21). The p-value is the share of patterns of signs whose sum is
    as far from zero: of all patterns where at most :data:`FEW` differences are not zero, else of
    9,999 by lot, seeded. For wins and losses of one size it is the sign test.

    Args:
        differences: one a task.
    """
    values = np.asarray(differences, dtype=float)
    differing = values[np.abs(values) > 1e-12]
    if len(differing) > FEW:
        batch = max(1, _AT_ONCE // len(differing))
        found = permutation_test(
            (differing,),
            np.mean,
            permutation_type="samples",
            n_resamples=_BY_LOT,
            batch=batch,
            rng=0,
        )
        return float(found.pvalue)
    sums = np.zeros(1)
    for value in differing:
        sums = np.concatenate([sums + value, sums - value])
    return float(np.mean(np.abs(sums) >= abs(differing.sum()) - 1e-9))


def exact_mcnemar(
    arm: Mapping[str, float],
    against: Mapping[str, float],
    level: float = 0.05,
    mid_p: bool = False,
) -> PairedTest:
    """McNemar's exact two-sided test (1947) of two arms' success by task id.

    Under no difference each discordant task is a fair coin, so the p-value is that of a binomial
    test of wins among discordant tasks with probability one half. With several training seeds,
    give each task's share of successes: the test is then the sign test over tasks, which counts
    a task once however many seeds there are, and holds for these seeds only.

    The default is the exact test: it never errs more often than ``level``. The mid-p form is less
    cautious and finds more; it has no such guarantee, though it kept the level in all scenarios of
    Fagerland, Lydersen and Laake (2013).

    Raises:
        ValueError: the arms were not evaluated on the same tasks.
    """
    if arm.keys() != against.keys():
        raise ValueError("a paired test needs both arms on the same tasks")
    wins = sum(arm[task] > against[task] for task in arm)
    losses = sum(against[task] > arm[task] for task in arm)
    p_value = sign_p_value(wins, losses, mid_p)
    verdict: Verdict = "cannot tell"
    if p_value < level:
        verdict = "better" if wins > losses else "worse"
    return PairedTest(len(arm), wins, losses, p_value, verdict)
