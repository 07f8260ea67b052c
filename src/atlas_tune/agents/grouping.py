"""Which rows are read together, so that little of what is read is padding."""

from __future__ import annotations

from collections.abc import Sequence

PASS = 128
"""What one more pass through the model costs, in tokens that are read: starting all its kernels
takes as long as reading about so many (SmolLM2-135M on a CPU)."""


def alike(lengths: Sequence[int], one_pass: int = PASS) -> list[list[int]]:
    """The places of the lengths in groups whose padding and passes cost least together.

    A group costs its longest length for each of its members, and one pass. In sorted order groups
    are runs of neighbours, so the best are found from the front (dynamic programming).

    Returns:
        groups of places, each in rising order of place, those of the shortest lengths first.
    """
    order = sorted(range(len(lengths)), key=lambda place: (lengths[place], place))
    # By how many of the shortest are grouped: the least cost, and where its last group begins.
    best: list[tuple[int, int]] = [(0, 0)]
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        best.append(
            min(
                (best[begin][0] + longest * (end - begin) + one_pass, begin) for begin in range(end)
            )
        )
    groups: list[list[int]] = []
    end = len(order)
    while end:
        begin = best[end][1]
        groups.insert(0, sorted(order[begin:end]))
        end = begin
    return groups
