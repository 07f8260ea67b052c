"""How far raters agree on which steps are critical, beyond what chance would give.

Cohen's kappa (1960) of each pair and Krippendorff's alpha (nominal; 2011) of all, each with a
percentile interval of the bootstrap *by trajectory*. Formulas and how to read them:
docs/agreement.md.

Where a rater calls every step the same, agreement says nothing: kappa is then undefined, never 0.

Shapes: N trajectories, K categories.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from atlas_tune.select.auditing.ratings import CATEGORIES, CRITICAL, NONE, Compared, Row
from atlas_tune.select.auditing.resampling import DRAWS, Array, Figure, bootstrapped, divided

Steps = Mapping[str, Mapping[int, Row]]

_KINDS = tuple(category for category in CATEGORIES if category != CRITICAL)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two raters on the steps that both of them rate."""

    raters: tuple[str, str]
    trajectories: int
    steps: int
    prevalence: tuple[Figure, Figure]
    """The share of these steps that each calls critical."""
    observed: Figure
    """The share of steps on which they agree whether it is critical."""
    kappa: Figure
    kinds_steps: int
    """Steps to which both give a kind, or call uncritical."""
    kinds_kappa: Figure
    confusion: dict[str, dict[str, int]]
    """By what the first calls a step and what the second does, where either ever does."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """All raters on some steps."""

    trajectories: int
    steps: int
    alpha: Figure
    kinds_alpha: Figure
    pairs: tuple[Pair, ...]


def agree(compared: Compared, draws: int = DRAWS, seed: int = 0) -> Agreement:
    """The agreement of raters on all steps that at least two of them rate."""
    return _agreement(compared.raters, compared.steps, draws, seed)


def agree_by_environment(
    compared: Compared, draws: int = DRAWS, seed: int = 0
) -> dict[str, Agreement]:
    """The same for each environment, in the order of their names."""
    return {
        name: _agreement(compared.raters, steps, draws, seed)
        for name, steps in by_environment(compared).items()
    }


def by_environment(compared: Compared) -> dict[str, Steps]:
    """The compared steps of each environment."""
    parts: dict[str, dict[str, Mapping[int, Row]]] = {}
    for key, steps in compared.steps.items():
        if key in compared.environments:
            parts.setdefault(compared.environments[key] or "not named", {})[key] = steps
    return dict(sorted(parts.items()))


def _agreement(raters: Sequence[str], steps: Steps, draws: int, seed: int) -> Agreement:
    giving = [_gives_kinds(steps, number) for number in range(len(raters))]
    critical = {
        key: [tuple(map(_criticality, row)) for row in rows.values()] for key, rows in steps.items()
    }
    kinds = {
        key: [
            tuple(_kind(said) if gives else None for said, gives in zip(row, giving, strict=True))
            for row in rows.values()
        ]
        for key, rows in steps.items()
    }
    return Agreement(
        trajectories=len(steps),
        steps=sum(map(len, steps.values())),
        alpha=_alpha(critical, (CRITICAL, NONE), draws, seed, "every step is called the same"),
        kinds_alpha=_alpha(
            kinds, _KINDS, draws, seed, "fewer than two kinds are given by two raters or more"
        ),
        pairs=tuple(
            _pair(raters, first, second, steps, draws, seed)
            for first, second in itertools.combinations(range(len(raters)), 2)
        ),
    )


def _gives_kinds(steps: Steps, rater: int) -> bool:
    """Whether a rater ever names one of the paper's kinds; a selection and a score never do."""
    return any(
        row[rater] not in (None, NONE, CRITICAL) for rows in steps.values() for row in rows.values()
    )


def _criticality(said: str | None) -> str | None:
    return said if said in (None, NONE) else CRITICAL


def _kind(said: str | None) -> str | None:
    """The kind, where one was given: who only says "critical" says nothing of kinds."""
    return None if said == CRITICAL else said


def _pair(
    raters: Sequence[str], first: int, second: int, steps: Steps, draws: int, seed: int
) -> Pair:
    names = (raters[first], raters[second])
    tables_NKK = np.zeros((len(steps), len(CATEGORIES), len(CATEGORIES)))
    place = {category: number for number, category in enumerate(CATEGORIES)}
    for number, key in enumerate(sorted(steps)):
        for row in steps[key].values():
            one, other = row[first], row[second]
            if one is not None and other is not None:
                tables_NKK[number, place[one], place[other]] += 1
    # A trajectory without a step that both rate is no cluster of this pair.
    tables_NKK = tables_NKK[tables_NKK.sum(axis=(1, 2)) > 0]
    whole_KK = tables_NKK.sum(axis=0)
    last = len(CATEGORIES) - 1
    halves_N22 = np.add.reduceat(np.add.reduceat(tables_NKK, [0, last], axis=1), [0, last], axis=2)
    given = [place[category] for category in _KINDS]
    silent = [raters[i] for i in (first, second) if not _gives_kinds(steps, i)]
    kinds_NKK = tables_NKK[:, given][:, :, given]
    kinds_NKK = kinds_NKK[(kinds_NKK.sum(axis=(1, 2)) > 0) & (not silent)]

    def of_halves(statistic: Callable[[Array], Array], why: str = "") -> Figure:
        return bootstrapped(halves_N22, statistic, draws, seed, why)

    return Pair(
        raters=names,
        trajectories=len(tables_NKK),
        steps=int(whole_KK.sum()),
        prevalence=(
            of_halves(lambda t: divided(t[..., 0, :].sum(axis=-1), t.sum(axis=(-1, -2)))),
            of_halves(lambda t: divided(t[..., :, 0].sum(axis=-1), t.sum(axis=(-1, -2)))),
        ),
        observed=of_halves(_observed),
        kappa=of_halves(cohen_kappa, _constant(names, halves_N22.sum(axis=0), ("critical", NONE))),
        kinds_steps=int(kinds_NKK.sum()),
        kinds_kappa=bootstrapped(
            kinds_NKK,
            cohen_kappa,
            draws,
            seed,
            f"no kind is ever named by {' and '.join(silent)}"
            if silent
            else _constant(names, kinds_NKK.sum(axis=0), _KINDS),
        ),
        confusion=_written(whole_KK),
    )


def _constant(names: tuple[str, str], table_KK: Array, categories: Sequence[str]) -> str:
    """Why kappa is undefined on a table: who calls every step the same."""
    if not table_KK.sum():
        return "there is no step of which both say it"
    for name, counts_K in zip(names, (table_KK.sum(axis=1), table_KK.sum(axis=0)), strict=True):
        if np.count_nonzero(counts_K) == 1:
            called = categories[int(np.argmax(counts_K))]
            if called == NONE:
                return f"{name} calls no step critical (prevalence 0)"
            if called == CRITICAL:
                return f"{name} calls every step critical (prevalence 1)"
            return f"{name} calls every step {called.replace('_', ' ')}"
    return ""


def _written(table_KK: Array) -> dict[str, dict[str, int]]:
    rows = [c for c, counts in zip(CATEGORIES, table_KK, strict=True) if counts.any()]
    columns = [c for c, counts in zip(CATEGORIES, table_KK.T, strict=True) if counts.any()]
    at = CATEGORIES.index
    return {row: {col: int(table_KK[at(row), at(col)]) for col in columns} for row in rows}


def cohen_kappa(tables: Array) -> Array:
    """Kappa of tables of counts (…, K, K); nan where a rater uses one category only.

    Where just one of the two does, the formula gives 0 whatever the other says: that is a figure
    about nothing, so it is left undefined too.
    """
    total = tables.sum(axis=(-1, -2))
    rows, columns = tables.sum(axis=-1), tables.sum(axis=-2)
    expected = divided((rows * columns).sum(axis=-1), total**2)
    kappa = divided(_observed(tables) - expected, 1 - expected)
    constant = (np.count_nonzero(rows, axis=-1) < 2) | (np.count_nonzero(columns, axis=-1) < 2)
    return np.where(constant, np.nan, kappa)


def _observed(tables: Array) -> Array:
    return divided(np.trace(tables, axis1=-2, axis2=-1), tables.sum(axis=(-1, -2)))


def krippendorff_alpha(coincidences: Array) -> Array:
    """Nominal alpha of coincidence matrices (…, K, K); nan where all values are the same."""
    counts = coincidences.sum(axis=-1)
    total = counts.sum(axis=-1)
    differing = total - np.trace(coincidences, axis1=-2, axis2=-1)
    alpha = 1 - divided((total - 1) * differing, total**2 - (counts**2).sum(axis=-1))
    return np.where(np.count_nonzero(counts, axis=-1) < 2, np.nan, alpha)


def coincidences(rows: Sequence[Row], categories: Sequence[str]) -> Array:
    """The coincidence matrix (K, K) of units, each with what every rater says of it, or None.

    A unit with m values adds each of its ordered pairs of values with weight 1 / (m - 1).
    """
    place = {category: number for number, category in enumerate(categories)}
    matrix = np.zeros((len(categories), len(categories)))
    for row, times in Counter(rows).items():
        values = [place[said] for said in row if said is not None]
        for one, other in itertools.permutations(values, 2):
            matrix[one, other] += times / (len(values) - 1)
    return matrix


def _alpha(
    units: Mapping[str, Sequence[Row]], categories: Sequence[str], draws: int, seed: int, why: str
) -> Figure:
    found = [coincidences(units[key], categories) for key in sorted(units)]
    found = [matrix for matrix in found if matrix.any()]
    if not found:
        return Figure(None, why="no step is so rated by two raters")
    return bootstrapped(np.stack(found), krippendorff_alpha, draws, seed, why)
