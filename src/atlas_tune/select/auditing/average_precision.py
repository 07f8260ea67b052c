"""Average precision of an order of steps, where some of them are tied.

AP = 1/P · Σ_k rel_k · (hits among the first k) / k, over the places k of the order, rel_k being 1
where the step at k is marked, and P the number of marked steps. Where steps are tied their order is
nobody's choice, so the figure is its expectation over all orders of the tied ones, in closed form
(McSherry and Najork, ECIR 2008). scikit-learn's gives a whole group of ties the precision at
its end: the same figure without ties, another one with them, and of a selection that is 0 or 1
nothing but ties is left.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from atlas_tune.select.auditing.resampling import DRAWS, Figure, bootstrapped, divided
from atlas_tune.select.auditing.taken import Order


def average_precision(order: Order, marked: Collection[int]) -> float | None:
    """The expected average precision of an order; None where no step of it is marked.

    In a group of g tied steps of which p are marked, after n steps with h marked ones, the step at
    place j of the group is marked with chance p/g, and h + 1 + (j − 1)(p − 1)/(g − 1) marked
    steps are then expected up to it.

    >>> average_precision((frozenset({1}), frozenset({2}), frozenset({3})), {1, 3})
    0.8333333333333333
    """
    before = hits = 0
    total = 0.0
    for group in order:
        size, found = len(group), len(group & set(marked))
        for place in range(1, size + 1):
            others = (place - 1) * (found - 1) / (size - 1) if size > 1 else 0.0
            total += found / size * (hits + 1 + others) / (before + place)
        before, hits = before + size, hits + found
    return total / hits if hits else None


def mean_average_precision(
    orders: Mapping[str, Order],
    marked: Mapping[str, Collection[int]],
    draws: int = DRAWS,
    seed: int = 0,
) -> Figure:
    """The mean over trajectories, with the interval of the bootstrap by trajectory.

    Within trajectories and not over the pool of all steps, because a selector chooses within each:
    scores of two trajectories need not be on one scale. A trajectory without a marked step has
    no part in it.
    """
    found = [average_precision(orders[key], marked[key]) for key in sorted(orders) if key in marked]
    values_N2 = np.array([[value, 1.0] for value in found if value is not None]).reshape(-1, 2)
    return bootstrapped(
        values_N2, lambda c: divided(c[..., 0], c[..., 1]), draws, seed, "no step is marked"
    )


def by_lot(orders: Mapping[str, Order]) -> dict[str, Order]:
    """The same steps, all of them tied: what a draw by lot is expected to reach."""
    return {key: (frozenset().union(*order),) for key, order in orders.items()}
