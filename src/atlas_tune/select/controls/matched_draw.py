"""Random draws under constraints: the same number, the same positions, the same tokens.

Every step has a lot, a Gumbel variable. Taking the n steps of a trajectory with the greatest lots
is a plain draw without replacement. A constraint over all trajectories becomes a handicap on the
lots: one for each bin of positions, or one for each token of a step. That is the Plackett-Luce
model (Yellott 1977): the draw stays random, and is tilted only as far as the constraint asks.

Lots, handicaps and tilts are whole numbers, so that sums have no rounding and a draw is the same
on every machine.

Shapes: S steps of all trajectories, N trajectories, B bins.
"""

from __future__ import annotations

import decimal
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NAT = 2**32
"""What one nat is in the whole numbers of lots."""
CLOSE = 0.001
"""Totals of tokens that differ by no more than this share are taken as equal: the search ends."""
_ROUNDS = 30
"""How often handicaps are fitted before single steps are moved."""
_STEEPEST = 64 * NAT
"""The greatest tilt a token: above any difference of two lots, so that length alone decides."""
_NONE = 2**61
"""Worse than any step. The difference of two of these fits into 64 bits."""
_NO_MOVE = 2**60
_ARITHMETIC = decimal.Context(prec=28)


@dataclass(frozen=True, slots=True)
class Pool:
    """The steps to draw from, those of a trajectory together."""

    trajectory_S: Ints
    """Which trajectory a step belongs to, from 0, never falling."""
    bin_S: Ints
    """The bin of its position, from 0."""
    lot_S: Ints
    """Its lot, see :func:`lot`."""
    tokens_S: Ints
    """How many supervised tokens it has, at most a million."""
    wanted_N: Ints
    """How many steps of each trajectory are drawn."""


def lot(draw: float) -> int:
    """The Gumbel variable -ln(-ln(u)) of a uniform draw u in [0, 1), in units of 1/NAT.

    Decimal's logarithm is rounded correctly everywhere, that of a machine's C library is not.
    """
    uniform = decimal.Decimal(draw or 2.0**-54)
    gumbel = -_ARITHMETIC.ln(-_ARITHMETIC.ln(uniform))
    return int(_ARITHMETIC.multiply(gumbel, NAT).to_integral_value())


def draw(pool: Pool, histogram_B: Ints | None, tokens: int | None) -> Bools:
    """Which steps are drawn: of each trajectory as many as wanted.

    Args:
        pool: the steps.
        histogram_B: how many steps each bin of positions gets, exactly. There must be a selection
            that has this histogram and the wanted numbers; the other arm is one.
        tokens: the total of supervised tokens that the draw comes as near to as it finds.
    """

    def best(lot_S: Ints) -> Bools:
        if histogram_B is None:
            return greatest(pool, lot_S)
        return greatest_in_histogram(pool, lot_S, histogram_B)

    if tokens is None:
        return best(pool.lot_S)
    taken_S = _with_tokens(pool, best, tokens)
    # Where steps are few, the tilt passes over some totals.
    return _with_swaps(pool, taken_S, tokens, keep_bins=histogram_B is not None)


def greatest(pool: Pool, lot_S: Ints) -> Bools:
    """Of each trajectory as many steps as wanted, those with the greatest lots."""
    order_S = np.lexsort((-lot_S, pool.trajectory_S))
    sizes_N = np.bincount(pool.trajectory_S, minlength=len(pool.wanted_N))
    starts_N = np.cumsum(sizes_N) - sizes_N
    rank_S = np.arange(len(lot_S)) - np.repeat(starts_N, sizes_N)
    taken_S = np.zeros(len(lot_S), dtype=np.bool_)
    taken_S[order_S] = rank_S < np.repeat(pool.wanted_N, sizes_N)
    return taken_S


def greatest_in_histogram(pool: Pool, lot_S: Ints, histogram_B: Ints) -> Bools:
    """The steps whose lots have the greatest sum, under the wanted numbers and the histogram.

    A transport problem. With one handicap a bin, the greatest lots of each trajectory are the best
    of all selections with *their* histogram, whichever that is. So handicaps are fitted until the
    histogram is nearly the wanted one; then one step after another is moved along the cheapest
    path from a bin that has too many to one that has too few, which keeps the selection the best
    (successive shortest paths, Busacker and Gowen 1960). Lots are all different but for chance,
    so there is one best selection, however the handicaps were fitted.
    """
    taken_S = _with_handicaps(pool, lot_S, histogram_B)
    surplus_B = _histogram(pool, taken_S, len(histogram_B)) - histogram_B
    while surplus_B.any():
        moves = _Moves.of(pool, lot_S, taken_S, len(histogram_B))
        start = int(np.argmax(surplus_B))
        path = moves.cheapest_path(start, np.flatnonzero(surplus_B < 0).tolist())
        for left, entered in itertools.pairwise(path):
            dropped, added = moves.steps(left, entered)
            taken_S[dropped], taken_S[added] = False, True
        surplus_B[path[0]] -= 1
        surplus_B[path[-1]] += 1
    return taken_S


def _with_handicaps(pool: Pool, lot_S: Ints, histogram_B: Ints) -> Bools:
    handicap_B = np.zeros(len(histogram_B), dtype=np.int64)
    nearest_S, least_gap = greatest(pool, lot_S), None
    for _ in range(_ROUNDS):
        taken_S = greatest(pool, lot_S - handicap_B[pool.bin_S])
        have_B = _histogram(pool, taken_S, len(histogram_B))
        gap = int(np.abs(have_B - histogram_B).sum())
        if least_gap is None or gap < least_gap:
            nearest_S, least_gap = taken_S, gap
        if gap == 0:
            break
        too_many_B = np.log((have_B + 0.5) / (histogram_B + 0.5))
        handicap_B += np.rint(NAT * too_many_B).astype(np.int64)
    return nearest_S


@dataclass(frozen=True, slots=True)
class _Moves:
    """For every two bins the cheapest way to drop a step of the one and take one of the other.

    Both steps are of one trajectory, so that its number stays; the cost is the loss of lots.
    """

    pool: Pool
    lot_S: Ints
    taken_S: Bools
    cost: list[list[int]]
    trajectory: list[list[int]]

    @classmethod
    def of(cls, pool: Pool, lot_S: Ints, taken_S: Bools, bins: int) -> _Moves:
        shape = (len(pool.wanted_N), bins)
        least_NB, most_NB = np.full(shape, _NONE), np.full(shape, -_NONE)
        free_S = ~taken_S
        np.minimum.at(least_NB, (pool.trajectory_S[taken_S], pool.bin_S[taken_S]), lot_S[taken_S])
        np.maximum.at(most_NB, (pool.trajectory_S[free_S], pool.bin_S[free_S]), lot_S[free_S])
        cost, trajectory = [], []
        for dropped_N in least_NB.T:
            loss_NB = dropped_N[:, None] - most_NB
            cost.append(loss_NB.min(axis=0).tolist())
            trajectory.append(loss_NB.argmin(axis=0).tolist())
        return cls(pool, lot_S, taken_S, cost, trajectory)

    def cheapest_path(self, start: int, ends: list[int]) -> list[int]:
        """The bins of the cheapest path from ``start`` to one of ``ends`` (Bellman-Ford)."""
        bins = range(len(self.cost))
        reached: dict[int, int] = {start: 0}
        came_from: dict[int, int] = {}
        for _ in bins:
            for left in [one for one in bins if one in reached]:
                for entered in bins:
                    cost = self.cost[left][entered]
                    if cost >= _NO_MOVE or entered in (left, start):
                        continue
                    if entered not in reached or reached[left] + cost < reached[entered]:
                        reached[entered] = reached[left] + cost
                        came_from[entered] = left
        path = [min((end for end in ends if end in reached), key=lambda end: reached[end])]
        while path[-1] != start:
            path.append(came_from[path[-1]])
        return path[::-1]

    def steps(self, left: int, entered: int) -> tuple[int, int]:
        """The step that is dropped from a bin and the one that is taken from another."""
        own_S = self.pool.trajectory_S == self.trajectory[left][entered]
        dropped = np.flatnonzero(own_S & (self.pool.bin_S == left) & self.taken_S)
        added = np.flatnonzero(own_S & (self.pool.bin_S == entered) & ~self.taken_S)
        return (
            int(dropped[np.argmin(self.lot_S[dropped])]),
            int(added[np.argmax(self.lot_S[added])]),
        )


def _with_tokens(pool: Pool, best: Callable[[Ints], Bools], tokens: int) -> Bools:
    """The draw whose lots are tilted by length as much as the total of tokens asks.

    The total never falls as the tilt rises, so the tilt is found by halving.
    """
    nearest_S = best(pool.lot_S)
    sign = 1 if _total(pool, nearest_S) < tokens else -1
    low, high, tilt = 0, _STEEPEST, NAT // 1000
    while high - low > 1:
        if abs(_total(pool, nearest_S) - tokens) <= CLOSE * tokens:
            break
        taken_S = best(pool.lot_S + sign * tilt * pool.tokens_S)
        total = _total(pool, taken_S)
        if abs(total - tokens) < abs(_total(pool, nearest_S) - tokens):
            nearest_S = taken_S
        if sign * (total - tokens) < 0:
            low = tilt
        else:
            high = tilt
        # Doubled until it is too much: a steep tilt leaves nothing to chance and is slow to fit.
        tilt = (low + high) // 2 if high < _STEEPEST else min(2 * tilt, _STEEPEST - 1)
        if tilt in (low, high):
            break
    return nearest_S


def _with_swaps(pool: Pool, taken_S: Bools, tokens: int, *, keep_bins: bool) -> Bools:
    """The draw with single steps swapped for others, as long as that brings the total nearer.

    Both steps of a swap are of one trajectory, and of one bin where positions are matched.
    """
    taken_S = taken_S.copy()
    starts = np.searchsorted(pool.trajectory_S, np.arange(len(pool.wanted_N) + 1)).tolist()
    while (gap := tokens - _total(pool, taken_S)) and abs(gap) > CLOSE * tokens:
        nearest, swap = abs(gap), None
        for start, end in itertools.pairwise(starts):
            dropped = start + np.flatnonzero(taken_S[start:end])
            added = start + np.flatnonzero(~taken_S[start:end])
            if not (len(dropped) and len(added)):
                continue
            left = np.abs(gap + pool.tokens_S[dropped][:, None] - pool.tokens_S[added])
            if keep_bins:
                left[pool.bin_S[dropped][:, None] != pool.bin_S[added]] = nearest
            row, column = np.unravel_index(int(left.argmin()), left.shape)
            if left[row, column] < nearest:
                nearest, swap = int(left[row, column]), (dropped[row], added[column])
        if swap is None:
            break
        taken_S[swap[0]], taken_S[swap[1]] = False, True
    return taken_S


def _histogram(pool: Pool, taken_S: Bools, bins: int) -> Ints:
    return np.bincount(pool.bin_S[taken_S], minlength=bins).astype(np.int64)


def _total(pool: Pool, taken_S: Bools) -> int:
    return int(pool.tokens_S[taken_S].sum())
