"""Records that are too long for the oracle: every step is shown, long observations in part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from atlas_tune.select.base import CannotLabel
from atlas_tune.select.oracle.prompt import Part

Size = Callable[[Sequence[Part]], int]

SHORTEST = 200
"""Characters that are left of a shortened observation at the least, half at either end."""


def shortened(parts: Sequence[Part], size: Size, limit: int) -> tuple[Part, ...]:
    """The parts of a record, with observations cut until ``size`` is at most ``limit``.

    The longest give first: all observations are cut down to one common length, the greatest
    that fits, and those that are shorter stay whole. Nothing that the agent, the user or the
    system wrote is ever cut.

    Raises:
        CannotLabel: the rest is too long even so; the message holds the figures.
    """
    if size(parts) <= limit:
        return tuple(parts)
    observations = [part for part in parts if part.is_observation]
    least = size(_cut_all(parts, SHORTEST))
    if least > limit:
        raise CannotLabel(
            f"the question needs {least:,} tokens even with its {len(observations)} observations "
            f"cut to {SHORTEST} characters, and {limit:,} are free of the oracle's "
            "context_tokens: raise that, or ask a model that reads more"
        )
    fits, too_long = SHORTEST, max(len(part.text) for part in observations)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if size(_cut_all(parts, middle)) <= limit:
            fits = middle
        else:
            too_long = middle
    return _cut_all(parts, fits)


def note_of(parts: Sequence[Part]) -> str | None:
    """What stands in the labels of a trajectory that was not shown whole."""
    cut = [part.left_out for part in parts if part.left_out]
    if not cut:
        return None
    observations = sum(part.is_observation for part in parts)
    return (
        f"the oracle saw {len(cut)} of {observations} observations shortened, "
        f"{sum(cut):,} characters left out"
    )


def _cut_all(parts: Sequence[Part], length: int) -> tuple[Part, ...]:
    return tuple(_cut(part, length) if part.is_observation else part for part in parts)


def _cut(part: Part, length: int) -> Part:
    left_out = len(part.text) - length
    if left_out <= 0:
        return part
    head = length - length // 2
    return replace(
        part, text=part.text[:head], left_out=left_out, tail=part.text[head + left_out :]
    )
