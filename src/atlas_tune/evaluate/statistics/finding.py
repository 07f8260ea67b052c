"""What a comparison shows: better, worse, equivalent, or that it cannot tell, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from atlas_tune.evaluate.statistics.bootstrap import DRAWS
from atlas_tune.evaluate.statistics.crossed import Crossed, bootstrap_crossed, crossed, spread
from atlas_tune.evaluate.statistics.differences import Array, as_matrix
from atlas_tune.evaluate.statistics.equivalence import Equivalence, tost
from atlas_tune.evaluate.statistics.multiplicity import holm
from atlas_tune.evaluate.statistics.paired import FEW, sign_flips, sign_p_value
from atlas_tune.evaluate.statistics.power import (
    MOST_SEEDS,
    MOST_TASKS,
    Needed,
    needed,
    spread_detectable,
)

Kind = Literal["better", "worse", "equivalent", "cannot tell"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict on one environment, with every number that decided it."""

    verdict: Kind
    seeds: int
    tasks: int
    wins: int
    """Tasks on which the arm does better, over all its seeds."""
    losses: int
    difference: float
    """Mean of arm minus other arm; zero where there is no pair."""
    interval: tuple[float, float] | None
    """The t interval (``crossed``), not adjusted; None where there is no spread to make it of."""
    bootstrap: tuple[float, float] | None
    """The two-level bootstrap interval: shown, not decisive."""
    test: str
    p_value: float
    adjusted_p_value: float
    """After Holm over the environments."""
    delta: float
    equivalence_p_value: float
    adjusted_equivalence_p_value: float
    detectable: float | None
    """The difference that this evaluation finds with 80% probability, before adjustment."""
    needed: Needed | None
    """What would find a difference of ``delta``; None where not needed, or no plan would do."""
    words: str


@dataclass(frozen=True, slots=True)
class _Measured:
    matrix_ST: Array
    found: Crossed
    wins: int
    losses: int
    test: str
    p_value: float
    equivalence: Equivalence


def verdict(
    differences: ArrayLike, delta: float, level: float = 0.05, draws: int = DRAWS, seed: int = 0
) -> Finding:
    """The verdict on one environment; see ``verdicts``."""
    return verdicts({"it": differences}, delta, level, draws, seed)["it"]


def verdicts(
    differences: Mapping[str, ArrayLike],
    delta: float,
    level: float = 0.05,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Finding]:
    """A verdict by environment on paired differences ``(S, T)`` of success or reward in [0, 1].

    - *better*, *worse*: the test of no difference rejects at ``level``, after Holm over the
      environments. With one seed and success as 0 or 1 it is McNemar's exact test, otherwise the
      t test of ``crossed``, and where few tasks differ their sign flips if these are less sure
      (:func:`.paired.sign_flips`); where all cells are equal or there is one task, which leaves
      a t test no spread over tasks, the sign test over tasks.
    - *equivalent*: TOST rejects a difference of ``delta`` or more, after Holm over the
      environments for this claim. A difference that is both established and within ``delta`` is
      called better or worse, and the words say that it is small.
    - *cannot tell* otherwise, with the tasks and seeds that would find ``delta`` with 80% power
      at Holm's strictest level.

    An environment without pairs is told as one that cannot tell; it is not a test and costs the
    others nothing.

    Raises:
        ValueError: a difference outside [-1, 1], delta not positive, level not between 0 and 0.5.
    """
    if not 0 < level < 0.5:
        raise ValueError(f"A level lies between 0 and 0.5; {level} does not.")
    if not 0 < delta < 1:
        raise ValueError(f"Delta is a share of one, above 0 and below 1; {delta} is not.")
    measured = {
        name: _measure(name, values, delta, level)
        for name, values in differences.items()
        if np.asarray(values, dtype=float).size and not np.isnan(np.asarray(values, float)).all()
    }
    differ = holm({name: m.p_value for name, m in measured.items()})
    same = holm({name: _p_value(m.equivalence) for name, m in measured.items()})
    return {
        name: _finding(
            measured[name], differ[name], same[name], len(measured), delta, level, draws, seed
        )
        if name in measured
        else _nothing(delta)
        for name in differences
    }


def _measure(name: str, values: ArrayLike, delta: float, level: float) -> _Measured:
    matrix_ST = as_matrix(values)
    if np.nanmax(np.abs(matrix_ST)) > 1:
        raise ValueError(
            f"A difference on {name} lies outside [-1, 1]: divide rewards by their range first."
        )
    found = crossed(matrix_ST)
    means_T = np.nanmean(matrix_ST, axis=0)
    wins, losses = int((means_T > 1e-12).sum()), int((means_T < -1e-12).sum())
    cells = matrix_ST[~np.isnan(matrix_ST)]
    if found.seeds == 1 and np.isin(cells, (-1, 0, 1)).all():
        test, p_value = "McNemar's exact test", sign_p_value(wins, losses)
    elif found.error > 0 and found.tasks > 1:
        test = "t test over seeds and tasks" if found.seeds > 1 else "paired t test over tasks"
        p_value = found.p_value
        # Of few tasks that differ a t test takes one-sidedness for certainty.
        if wins + losses <= FEW and (flipped := sign_flips(means_T)) > p_value:
            test, p_value = "sign flips of the tasks that differ", flipped
    else:
        test, p_value = "sign test over tasks", sign_p_value(wins, losses)
    return _Measured(matrix_ST, found, wins, losses, test, p_value, tost(matrix_ST, delta, level))


def _p_value(equivalence: Equivalence) -> float:
    return 1.0 if equivalence.p_value is None else equivalence.p_value


def _finding(
    m: _Measured,
    adjusted: float,
    same: float,
    family: int,
    delta: float,
    level: float,
    draws: int,
    seed: int,
) -> Finding:
    found = m.found
    kind: Kind = "cannot tell"
    if adjusted < level:
        kind = "better" if found.mean > 0 else "worse"
    elif same < level:
        kind = "equivalent"
    # The spread of seeds on one task says nothing of other tasks.
    variances, varied = spread(m.matrix_ST), found.error > 0 and found.tasks > 1
    plan = None
    if kind == "cannot tell" and varied:
        plan = needed(variances, delta, seeds=found.seeds, tasks=found.tasks, level=level / family)
    detectable = spread_detectable(variances, found.seeds, found.tasks, level) if varied else None
    return Finding(
        verdict=kind,
        seeds=found.seeds,
        tasks=found.tasks,
        wins=m.wins,
        losses=m.losses,
        difference=found.mean,
        interval=found.interval(1 - level) if varied else None,
        bootstrap=bootstrap_crossed(m.matrix_ST, 1 - level, draws, seed) if varied else None,
        test=m.test,
        p_value=m.p_value,
        adjusted_p_value=adjusted,
        delta=delta,
        equivalence_p_value=_p_value(m.equivalence),
        adjusted_equivalence_p_value=same,
        detectable=detectable,
        needed=plan,
        words=_words(m, kind, adjusted, same, same < level, delta, plan),
    )


def _words(
    m: _Measured,
    kind: Kind,
    adjusted: float,
    same: float,
    small: bool,
    delta: float,
    plan: Needed | None,
) -> str:
    found = m.found
    p_value = f"p {_p_words(adjusted)}, {m.test}"
    counted = f"{_number(m.wins, 'task')} better, {m.losses} worse of {found.tasks}"
    by = f"{100 * found.mean:+.1f} points; {counted}"
    if kind == "equivalent":
        said = [f"Equivalent within {_points(delta)} ({by}; p {_p_words(same)}, TOST)."]
    elif kind == "cannot tell":
        said = [f"Cannot tell ({by}; {p_value})."]
        if found.error > 0 and found.tasks > 1:
            said.append(_plan_words(found, delta, plan))
    else:
        said = [
            f"{kind.capitalize()} by {100 * abs(found.mean):.1f} points ({counted}; {p_value})."
        ]
        if small:
            said.append(f"The difference is smaller than {_points(delta)}.")
    return " ".join([*said, *_cautions(m)])


def _plan_words(found: Crossed, delta: float, plan: Needed | None) -> str:
    """What size of evaluation would tell a difference of ``delta``."""
    if plan is None:
        seeds = "1 seed" if found.seeds == 1 else f"{MOST_SEEDS} seeds"
        return (
            f"Not even {MOST_TASKS:,} tasks x {seeds} would find a difference of {_points(delta)}."
        )
    if (plan.tasks, plan.seeds) == (found.tasks, found.seeds):
        return f"This size finds {_points(delta)} with 80% probability; the difference may be less."
    tasks, seeds = _number(plan.tasks, "task"), _number(plan.seeds, "seed")
    return f"A difference of {_points(delta)} would need {tasks} x {seeds}."


def _cautions(m: _Measured) -> list[str]:
    """What the reader must know of a degenerate or small comparison."""
    said = []
    if not m.wins and not m.losses and not m.found.error > 0:
        said.append("The arms do not differ on any task.")
    elif (m.wins == 0) != (m.losses == 0):
        said.append("All tasks that differ go one way.")
    if m.found.tasks == 1:
        said.append("One task says nothing of others.")
    if m.found.seeds == 1:
        said.append("One seed: this holds for these trained models, not for another training.")
    elif m.found.seeds < 5:
        said.append(f"{m.found.seeds} seeds: how much trainings differ is known only roughly.")
    return said


def _points(share: float) -> str:
    return f"{100 * share:g} points"


def _p_words(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _nothing(delta: float) -> Finding:
    return Finding(
        "cannot tell",
        0,
        0,
        0,
        0,
        0.0,
        None,
        None,
        "none",
        1.0,
        1.0,
        delta,
        1.0,
        1.0,
        None,
        None,
        "Cannot tell: there is no task that both arms were evaluated on.",
    )
