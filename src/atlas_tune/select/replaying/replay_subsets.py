"""Removing several steps: pairs that stand in for each other, and a run's minimal subset.

Of two steps that each suffice neither is necessary alone, yet one of them is needed. Pairs find
them; a minimal sufficient subset keeps one of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import combinations

from atlas_tune.select.replaying.playback import Move, Playback
from atlas_tune.select.replaying.removals import (
    Finding,
    Removals,
    consequence,
    each_alone,
    ends,
    loss,
)


def in_pairs(run: Removals, max_pairs: int) -> dict[int, Finding]:
    """Measure ``pairs``: as ``single``, and two by two the steps that are not necessary alone.

    A step that is necessary jointly with another has half of the loss without both, of the pair
    that loses most. Half is the share of each in what the two are worth together (the Shapley
    value of two that replace each other), so it stands below a step that loses as much alone.
    An action that was refused in the run can replace another one, but is no candidate itself.

    Args:
        run: what is played.
        max_pairs: the most pairs that are tried; the likeliest first.
    """
    findings, spared = each_alone(run)
    pairs = pairs_that_could_matter(run.moves, spared)
    best: dict[int, tuple[float, int, Playback]] = {}
    others: dict[int, int] = {}
    for pair in pairs[:max_pairs]:
        without = run.without(pair)
        lost = loss(run.whole, without)
        if lost <= 0:
            continue
        for step_id, partner in (pair, pair[::-1]):
            others[step_id] = others.get(step_id, -1) + 1
            if step_id not in best or lost > best[step_id][0]:
                best[step_id] = (lost, partner, without)
    untried: dict[int, int] = {}
    for pair in pairs[max_pairs:]:
        for step_id in pair:
            untried[step_id] = untried.get(step_id, 0) + 1
    for step_id in spared:
        found = findings[step_id]
        # What was refused, or came after the end, can stand in for a step, but did nothing itself.
        if step_id in best and run.whole.admissible.get(step_id):
            lost, partner, without = best[step_id]
            more = others[step_id]
            reason = (
                f"{found.reason}; replaceable by step {partner}"
                + (f" and {more} other step{'s' if more > 1 else ''}" if more else "")
                + f": without both the run {ends(run.whole.reward, without.reward)}; "
                + consequence(run.whole, without, run.moves, {step_id, partner})
            )
            found = Finding(True, lost / 2, reason)
        if step_id in untried:
            left = f"{untried[step_id]} pairs with it were not tried (max_pairs is {max_pairs})"
            found = Finding(found.critical, found.score, f"{found.reason}; {left}")
        findings[step_id] = found
    return findings


def pairs_that_could_matter(
    moves: Sequence[Move], spared: Mapping[int, Playback]
) -> list[tuple[int, int]]:
    """The pairs of steps that are worth removing, those likeliest to replace each other first.

    A refused action changes nothing, and neither does one after the end of an episode. So where
    one step is refused or never reached without the other, removing both is exactly like removing
    the other alone, which loses nothing. Likeliest are actions that share most words, then those
    that stand nearest.

    Args:
        moves: of the run, in order.
        spared: the playbacks without each of the steps that are not necessary alone.
    """
    words = {move.step_id: frozenset(move.action.split()) for move in moves}
    place = {move.step_id: at for at, move in enumerate(moves)}

    def unlikeliness(pair: tuple[int, int]) -> tuple[float, int, tuple[int, int]]:
        one, other = (words[step_id] for step_id in pair)
        return -len(one & other) / len(one | other), place[pair[1]] - place[pair[0]], pair

    pairs = [
        (one, other)
        for one, other in combinations(sorted(spared), 2)
        if spared[one].admissible.get(other) and spared[other].admissible.get(one)
    ]
    return sorted(pairs, key=unlikeliness)


def minimal(run: Removals) -> dict[int, Finding]:
    """Measure ``minimal``: what is left when whatever can be spared is removed, from the end on.

    Backward greedy passes: a step is removed for good where the return is not lower without it,
    and passes go on until every step that is left loses something, with all the others that are
    left (1-minimality). Of two steps that each suffice, the earlier is kept. Where a removal
    raises the return, the higher one must be kept from then on. What is kept scores what it loses.
    """
    kept, held = list(run.moves), run.whole
    needed: dict[int, Playback] = {}
    to_try = deque(reversed(kept))
    while to_try:
        move = to_try.popleft()
        without = _only(run, [other for other in kept if other is not move])
        if loss(held, without) > 0:
            needed[move.step_id] = without
            continue
        kept.remove(move)
        held = without
        # They were needed beside this step; whether they still are is for the next pass to say.
        to_try.extend(other for other in reversed(kept) if other.step_id in needed)
        needed = {}
    spare = f"{len(kept)} actions of {len(run.moves)} that suffice for return {held.reward:.2f}"
    findings = {}
    for move in run.moves:
        step_id = move.step_id
        if step_id in needed:
            without = needed[step_id]
            reason = (
                f"one of the {spare}: without this step too the run "
                f"{ends(held.reward, without.reward)}; "
                + consequence(held, without, kept, {step_id})
            )
            findings[step_id] = Finding(True, loss(held, without), reason)
        else:
            findings[step_id] = Finding(False, 0.0, f"not one of the {spare}")
    return findings


def _only(run: Removals, moves: Sequence[Move]) -> Playback:
    left = {move.step_id for move in moves}
    return run.without({move.step_id for move in run.moves} - left)


def most_steps(moves: int, measure: str, max_pairs: int) -> int:
    """The most actions that a measure plays in a run of so many.

    ``single`` plays the run, and without each of its n steps: n + n (n - 1). ``minimal`` tries, at
    worst, all k steps that are left before one can be spared: n + Σ k (k - 1) for k = 1..n.

    >>> [most_steps(4, measure, 5) for measure in ("single", "pairs", "minimal")]
    [16, 26, 24]
    """
    if measure == "minimal":
        return moves + (moves - 1) * moves * (moves + 1) // 3
    alone = moves * moves
    if measure == "single":
        return alone
    return alone + min(max_pairs, moves * (moves - 1) // 2) * max(moves - 2, 0)
