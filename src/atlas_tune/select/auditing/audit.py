"""A selection held against a reference: measured labels, score rises, a yardstick.

Precision, recall and F1 with intervals of the bootstrap by trajectory, beside what as many steps
drawn by lot would reach. Definitions and how to read them: docs/agreement.md.

Shapes: N trajectories, F counts of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from atlas_tune.select.auditing.agreement import by_environment
from atlas_tune.select.auditing.ratings import CATEGORIES, CRITICAL, NONE, Compared, Row
from atlas_tune.select.auditing.resampling import DRAWS, Array, Figure, bootstrapped, divided

_HIT, _SELECTED, _MARKED, _STEPS, _BY_LOT, _ATTAINABLE = range(6)


@dataclass(frozen=True, slots=True)
class Scores:
    """How well the selected steps are the marked ones."""

    trajectories: int
    steps: int
    selected: int
    marked: int
    hits: int
    """Steps that are both."""
    precision: Figure
    recall: Figure
    f1: Figure
    prevalence: Figure
    """The share of steps that are marked: the precision of steps drawn at random."""
    share: Figure
    """The share of steps that are selected: the recall of steps drawn at random."""
    lift: Figure
    """Precision over prevalence, which is also recall over share."""
    matched_lift: Figure
    """Hits over those expected of as many steps drawn at random in each trajectory."""
    attainable: Figure
    """The largest recall that as many steps in each trajectory could have."""


@dataclass(frozen=True, slots=True)
class KindScores:
    """Steps of one kind: how many, and which share of them the other side has too."""

    steps: int
    hits: int
    share: Figure


@dataclass(frozen=True, slots=True)
class Audit:
    """A selection against a reference, whole and in parts."""

    whole: Scores
    environments: Mapping[str, Scores]
    selected_kinds: Mapping[str, KindScores]
    """By the selector's kinds: the share of its steps that are marked (precision)."""
    marked_kinds: Mapping[str, KindScores]
    """By the reference's kinds: the share of its steps that are selected (recall)."""


def audit(compared: Compared, draws: int = DRAWS, seed: int = 0) -> Audit:
    """Hold the first of two raters, the selection, against the second, the reference."""
    return Audit(
        whole=_scores(compared.steps, draws, seed),
        environments={
            name: _scores(steps, draws, seed) for name, steps in by_environment(compared).items()
        },
        selected_kinds=_kinds(compared.steps, 0, draws, seed),
        marked_kinds=_kinds(compared.steps, 1, draws, seed),
    )


def _scores(steps: Mapping[str, Mapping[int, Row]], draws: int, seed: int) -> Scores:
    counts_NF = np.array([_counts(steps[key].values()) for key in sorted(steps)], dtype=float)

    def figure(
        above: Callable[[Array], Array], below: Callable[[Array], Array], why: str
    ) -> Figure:
        return bootstrapped(counts_NF, lambda c: divided(above(c), below(c)), draws, seed, why)

    def ratio(above: int, below: int, why: str = "") -> Figure:
        return figure(lambda c: c[..., above], lambda c: c[..., below], why)

    total_F = counts_NF.sum(axis=0)
    nothing = "no step is selected" if not total_F[_SELECTED] else "no step is marked"
    return Scores(
        trajectories=len(steps),
        steps=int(total_F[_STEPS]),
        selected=int(total_F[_SELECTED]),
        marked=int(total_F[_MARKED]),
        hits=int(total_F[_HIT]),
        precision=ratio(_HIT, _SELECTED, "no step is selected"),
        recall=ratio(_HIT, _MARKED, "no step is marked"),
        f1=figure(
            lambda c: 2 * c[..., _HIT],
            lambda c: c[..., _SELECTED] + c[..., _MARKED],
            "no step is selected or marked",
        ),
        prevalence=ratio(_MARKED, _STEPS),
        share=ratio(_SELECTED, _STEPS),
        lift=figure(
            lambda c: c[..., _HIT] * c[..., _STEPS],
            lambda c: c[..., _SELECTED] * c[..., _MARKED],
            nothing,
        ),
        matched_lift=ratio(_HIT, _BY_LOT, "no trajectory has both a selected and a marked step"),
        attainable=ratio(_ATTAINABLE, _MARKED, "no step is marked"),
    )


def _counts(rows: Iterable[Row]) -> list[float]:
    """The counts of one trajectory, in the order of the names above."""
    hits = selected = marked = steps = 0
    for said, known in rows:
        steps += 1
        selected += said != NONE
        marked += known != NONE
        hits += said != NONE and known != NONE
    return [hits, selected, marked, steps, selected * marked / steps, min(selected, marked)]


def _kinds(
    steps: Mapping[str, Mapping[int, Row]], side: int, draws: int, seed: int
) -> dict[str, KindScores]:
    """By the kinds of one side, how many of its steps the other side has; empty without kinds."""
    found = {}
    for kind in CATEGORIES:
        if kind in (CRITICAL, NONE):
            continue
        counts = Counter(
            (key, row[1 - side] != NONE)
            for key, rows in steps.items()
            for row in rows.values()
            if row[side] == kind
        )
        keys = sorted({key for key, _ in counts})
        if keys:
            counts_N2 = np.array(
                [[counts[key, True], counts[key, True] + counts[key, False]] for key in keys]
            )
            hits, total = counts_N2.sum(axis=0)
            share = bootstrapped(counts_N2, lambda c: divided(c[..., 0], c[..., 1]), draws, seed)
            found[kind] = KindScores(int(total), int(hits), share)
    return found
