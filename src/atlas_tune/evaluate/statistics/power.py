"""How small an effect can be told, and how many tasks and seeds a wanted effect takes."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

from scipy.optimize import brentq
from scipy.stats import norm
from scipy.stats import t as student

from atlas_tune.evaluate.statistics.crossed import Spread

MOST_TASKS = 10_000
MOST_SEEDS = 100
"""Beyond these a plan is no plan."""


def paired_power(
    effect: float,
    tasks: int,
    discordance: float,
    *,
    seeds: int = 1,
    agreement: float = 1.0,
    level: float = 0.05,
) -> float:
    """The chance that a two-sided paired test of success finds a true ``effect``.

    ``discordance`` is the share of tasks on which two single runs differ, p10 + p01; ``effect`` is
    p10 - p01. Power = Phi((|d| sqrt(T) - z sqrt(psi c)) / sqrt((psi - d^2) c)), Connor (Biometrics
    43, 1987) for one seed, where c = 1. With S seeds a task's difference is a mean of S, correlated
    by ``agreement``, so both variances shrink by c = (1 + (S - 1) agreement) / S (Kish 1965). The
    default 1 says that more seeds bring nothing. It holds for the trained models at hand;
    ``needed`` plans for new trainings. The exact test has a little less power.

    Raises:
        ValueError: a share outside its range, an effect beyond the discordance, no task or seed.
    """
    _check(tasks, discordance, seeds, agreement, level)
    if abs(effect) > discordance:
        raise ValueError(
            f"An effect of {effect:g} needs as much discordance; it is {discordance:g}."
        )
    share = (1 + (seeds - 1) * agreement) / seeds
    asked = norm.isf(level / 2) * sqrt(discordance * share)
    beyond = abs(effect) * sqrt(tasks) - asked
    left = sqrt((discordance - effect**2) * share)
    return float(norm.cdf(beyond / left)) if left > 0 else float(beyond > 0)


def detectable_effect(
    tasks: int,
    discordance: float,
    *,
    seeds: int = 1,
    agreement: float = 1.0,
    level: float = 0.05,
    power: float = 0.8,
) -> float | None:
    """The smallest true effect that is found with probability ``power``; None where none is.

    It solves ``paired_power`` for the effect. None means that even if every task that differs
    were won, there are too few of them.

    Raises:
        ValueError: a share outside its range, no task or seed.
    """
    _check(tasks, discordance, seeds, agreement, level)
    _check_power(power)

    def missing(effect: float) -> float:
        return power - paired_power(
            effect, tasks, discordance, seeds=seeds, agreement=agreement, level=level
        )

    if not discordance or missing(discordance) > 0:
        return None
    return float(brentq(missing, 0.0, discordance))


def tasks_needed(
    effect: float,
    discordance: float,
    *,
    seeds: int = 1,
    agreement: float = 1.0,
    level: float = 0.05,
    power: float = 0.8,
) -> int:
    """The tasks on which ``effect`` is found with probability ``power``.

    T = c ((z_a sqrt(psi) + z_b sqrt(psi - d^2)) / d)^2, Connor (Biometrics 43, 1987), rounded up;
    c as in ``paired_power``.

    Raises:
        ValueError: the effect is zero or beyond the discordance, a share outside its range.
    """
    _check(1, discordance, seeds, agreement, level)
    _check_power(power)
    if not 0 < abs(effect) <= discordance:
        raise ValueError(
            f"The wanted effect lies above 0 and within the discordance of {discordance:g}; "
            f"{effect:g} does not."
        )
    share = (1 + (seeds - 1) * agreement) / seeds
    reach = norm.isf(level / 2) * sqrt(discordance) + norm.ppf(power) * sqrt(
        discordance - effect**2
    )
    return ceil(float(share * (reach / effect) ** 2))


@dataclass(frozen=True, slots=True)
class Needed:
    """An evaluation large enough."""

    tasks: int
    seeds: int


def spread_detectable(
    spread: Spread, seeds: int, tasks: int, level: float = 0.05, power: float = 0.8
) -> float | None:
    """The mean difference that ``crossed`` finds with probability ``power``; None for one cell.

    (t_{1-level/2} + t_power) times the standard error, with Satterthwaite's degrees of freedom: the
    usual approximation to the noncentral t (Zar, Biostatistical Analysis, chapter 7).
    """
    left = spread.cells / (seeds * tasks)
    parts = [
        (variance + left, size - 1)
        for variance, size in ((spread.seeds / seeds, seeds), (spread.tasks / tasks, tasks))
        if size > 1
    ]
    squared = sum(part for part, _ in parts)
    if not parts:
        return None
    if not squared:
        return 0.0
    freedom = squared**2 / sum(part**2 / free for part, free in parts)
    reach = student.ppf(1 - level / 2, freedom) + student.ppf(power, freedom)
    return float(reach) * sqrt(squared)


def needed(
    spread: Spread,
    effect: float,
    *,
    seeds: int = 1,
    tasks: int = 2,
    level: float = 0.05,
    power: float = 0.8,
    most_tasks: int = MOST_TASKS,
) -> Needed | None:
    """The fewest seeds, and then the fewest tasks, that find ``effect``; None if no plan does.

    Starts from ``seeds`` and ``tasks`` that are there: a training costs more than an evaluation, so
    seeds are added only where ``most_tasks`` tasks do not do. ``spread`` is what was measured;
    with one seed it knows nothing of how trainings differ, and the answer holds for one training.

    Raises:
        ValueError: the effect is not positive.
    """
    if not effect > 0:
        raise ValueError(f"A wanted effect is positive, in shares of one; it is {effect}.")
    _check_power(power)

    def enough(with_seeds: int, with_tasks: int) -> bool:
        found = spread_detectable(spread, with_seeds, with_tasks, level, power)
        return found is not None and found <= effect

    for with_seeds in range(seeds, MOST_SEEDS + 1):
        if enough(with_seeds, max(tasks, most_tasks)):
            low, high = max(2, tasks), max(tasks, most_tasks)
            while low < high:
                middle = (low + high) // 2
                low, high = (low, middle) if enough(with_seeds, middle) else (middle + 1, high)
            return Needed(high, with_seeds)
        if with_seeds == 1 and not spread.seeds:
            return None
    return None


def _check(tasks: int, discordance: float, seeds: int, agreement: float, level: float) -> None:
    if tasks < 1 or seeds < 1:
        raise ValueError(f"There must be a task and a seed, not {tasks} and {seeds}.")
    for name, share in (("discordance", discordance), ("agreement", agreement)):
        if not 0 <= share <= 1:
            raise ValueError(f"The {name} is a share between 0 and 1; {share} is not.")
    if not 0 < level < 1:
        raise ValueError(f"A level lies between 0 and 1; {level} does not.")


def _check_power(power: float) -> None:
    if not 0.5 <= power < 1:
        raise ValueError(f"A power to plan for lies from 0.5 up to 1; {power} does not.")
