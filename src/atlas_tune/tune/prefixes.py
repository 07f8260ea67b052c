"""Rows as a forest of prefixes: what several rows begin with stands once.

Rows of one optimiser step often begin alike: the environment's instruction, few-shot text, the
same task. Under causal attention what a token's hidden state is depends on the tokens before it
alone, so a shared beginning need be computed only once, and the gradients that the rows send into
it add up. This module cuts rows into the nodes of tries; what it gives up nothing of is shown by
:func:`rows_of`, which gives the rows back.

A token is predicted from the position before it, and several rows may branch right there. So the
loss stands at positions: each with the token that a row has next, and a weight.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from atlas_tune.tune.rows import Row

LEAST_SHARED = 16
"""Fewer tokens than this are computed again rather than shared: a node costs a call of attention
per layer, which is worth more than a few tokens."""


@dataclass(frozen=True, slots=True)
class Target:
    """A supervised token, told from the position that predicts it."""

    offset: int
    """Of the predicting position, in its node."""
    token: int
    """The id that the row has next."""
    weight: float
    """How much its −log π counts: the sum over the rows that share it."""


@dataclass(frozen=True, slots=True)
class Node:
    """A run of tokens that one or several rows share."""

    tokens: tuple[int, ...]
    start: int
    """Position of the first token in its rows."""
    parent: int | None
    """Index of the node that comes before it."""
    targets: tuple[Target, ...]


Forest = tuple[Node, ...]
"""Nodes, parents before children."""


def forest_of(rows: Sequence[Row], *, least_shared: int | None = LEAST_SHARED) -> Forest:
    """The prefix forest of rows.

    Args:
        rows: training rows.
        least_shared: the fewest tokens worth sharing; None shares nothing, and every row is a
            node of its own.
    """
    supervised = [
        {at: span.weight for span in row.spans for at in range(span.start, span.end)}
        for row in rows
    ]
    nodes: list[Node] = []

    def grow(group: list[int], depth: int, parent: int | None) -> None:
        """Add what the rows of a group, alike before ``depth``, have from there on."""
        for alike in _alike(group, depth):
            end = _common_end([rows[i].input_ids for i in alike], depth)
            tokens = rows[alike[0]].input_ids[depth:end]
            targets: dict[tuple[int, int], float] = defaultdict(float)
            for i in alike:
                ids = rows[i].input_ids
                for at in range(depth, end):
                    if at + 1 in supervised[i]:
                        targets[at - depth, ids[at + 1]] += supervised[i][at + 1]
            found = tuple(Target(at, token, weight) for (at, token), weight in targets.items())
            nodes.append(Node(tokens, depth, parent, found))
            longer = [i for i in alike if len(rows[i].input_ids) > end]
            if longer:
                grow(longer, end, len(nodes) - 1)

    def _alike(group: list[int], depth: int) -> list[list[int]]:
        """The group cut into those that go on alike for long enough."""
        if least_shared is None:
            return [[i] for i in group]
        by_beginning: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i in group:
            by_beginning[rows[i].input_ids[depth : depth + least_shared]].append(i)
        found = []
        for beginning, members in by_beginning.items():
            if len(beginning) < least_shared:
                found += [[i] for i in members]
            else:
                found.append(members)
        return found

    grow(list(range(len(rows))), 0, None)
    return tuple(nodes)


def path_of(forest: Forest, node: int) -> list[int]:
    """The nodes before a node, first one first, and itself."""
    path = [node]
    while (parent := forest[path[-1]].parent) is not None:
        path.append(parent)
    return path[::-1]


def rows_of(forest: Forest) -> list[tuple[int, ...]]:
    """The token ids of every leaf's row."""
    inner = {node.parent for node in forest}
    return [
        tuple(token for on in path_of(forest, leaf) for token in forest[on].tokens)
        for leaf in range(len(forest))
        if leaf not in inner
    ]


def tokens_of(forest: Forest) -> int:
    """How many tokens are computed."""
    return sum(len(node.tokens) for node in forest)


def _common_end(rows: Sequence[tuple[int, ...]], start: int) -> int:
    """Where rows that agree up to ``start`` cease to agree."""
    first, last = min(rows), max(rows)  # all others lie between them, so they agree as far
    end = start
    while end < min(len(first), len(last)) and first[end] == last[end]:
        end += 1
    return end
