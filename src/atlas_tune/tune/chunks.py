"""A prefix forest cut into chunks that fit memory: what runs in one forward pass.

A chunk's tokens are packed behind each other without padding. Trees that fit are put together,
first-fit decreasing. Of a tree that does not fit, the root is a chunk of its own, and its
branches are chunks that need it: they run after its forward pass, against its keys and values,
and before its backward pass, which then takes the gradients that they left there. So a token is
computed once per optimiser step, however many chunks need it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from atlas_tune.tune.prefixes import Forest


@dataclass(frozen=True, slots=True)
class Chunk:
    """Nodes that run together, and the chunks that run against their keys and values."""

    nodes: tuple[int, ...]
    """Parents before children; a parent is in the chunk or in one that this one is ``then`` of."""
    then: tuple[Chunk, ...] = ()


def cut(forest: Forest, most_tokens: int) -> list[Chunk]:
    """The chunks of an optimiser step, each of at most ``most_tokens`` new tokens.

    What chunks run against is held until they are done, so they get what it leaves of
    ``most_tokens``, or half of it where it leaves less. A node that is longer runs alone: it is one
    row's, or what rows share, and cutting it is what gradient checkpointing is for.
    """
    children: dict[int | None, list[int]] = defaultdict(list)
    for index, node in enumerate(forest):
        children[node.parent].append(index)
    size = [len(node.tokens) for node in forest]
    for index in reversed(range(len(forest))):
        parent = forest[index].parent
        if parent is not None:
            size[parent] += size[index]

    def whole(root: int) -> list[int]:
        return [root, *(below for child in children[root] for below in whole(child))]

    def chunks(roots: Sequence[int], budget: int) -> list[Chunk]:
        small = [root for root in roots if size[root] <= budget]
        large = [root for root in roots if size[root] > budget]
        bins: list[list[int]] = []
        room: list[int] = []
        for root in sorted(small, key=lambda root: (-size[root], root)):
            fits = next((i for i, left in enumerate(room) if size[root] <= left), None)
            if fits is None:
                bins.append([])
                room.append(budget)
                fits = len(bins) - 1
            bins[fits].append(root)
            room[fits] -= size[root]
        packed = [Chunk(tuple(sorted(on for root in some for on in whole(root)))) for some in bins]
        alone = [
            Chunk((root,), tuple(chunks(children[root], left_by(root, budget)))) for root in large
        ]
        return alone + packed

    def left_by(root: int, budget: int) -> int:
        return max(budget - len(forest[root].tokens), most_tokens // 2, 1)

    return chunks(children[None], most_tokens)
