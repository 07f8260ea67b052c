"""Intervals and paired tests for success on tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import binomtest

Verdict = Literal["better", "worse", "cannot tell"]


def wilson_interval(successes: int, tasks: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a success rate (Wilson 1927), as two shares of one.

    Unlike the normal approximation it stays inside [0, 1] and is of use at 0 of n.

    Raises:
        ValueError: there is no task, or more successes than tasks.
    """
    interval = binomtest(successes, tasks).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_mean(
    values: list[float], confidence: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean over tasks (Efron 1979), seeded.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("an interval needs at least one value")
    sample = np.asarray(values, dtype=float)
    generator = np.random.default_rng(seed)
    means = sample[generator.integers(0, len(sample), (draws, len(sample)))].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


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


def exact_mcnemar(
    arm: Mapping[str, float], against: Mapping[str, float], level: float = 0.05
) -> PairedTest:
    """McNemar's exact two-sided test (1947) of two arms' success by task id.

    Under no difference each discordant task is a fair coin, so the p-value is that of a binomial
    test of wins among discordant tasks with probability one half. With several training seeds,
    give each task's share of successes: the test is then the sign test over tasks, which counts
    a task once however many seeds there are.

    Raises:
        ValueError: the arms were not evaluated on the same tasks.
    """
    if arm.keys() != against.keys():
        raise ValueError("a paired test needs both arms on the same tasks")
    wins = sum(arm[task] > against[task] for task in arm)
    losses = sum(against[task] > arm[task] for task in arm)
    discordant = wins + losses
    p_value = float(binomtest(wins, discordant, 0.5).pvalue) if discordant else 1.0
    verdict: Verdict = "cannot tell"
    if p_value < level:
        verdict = "better" if wins > losses else "worse"
    return PairedTest(len(arm), wins, losses, p_value, verdict)
