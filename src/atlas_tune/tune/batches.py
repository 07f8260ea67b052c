"""The order of training: which rows meet in an optimiser step, and how it is cut to fit memory.

All of it is a function of the rows' lengths, the settings and the seed, so that a killed run
resumes into exactly the steps it still owes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

Microbatch = tuple[int, ...]
"""Indices of rows that are padded to one length and run together."""
OptimiserStep = tuple[Microbatch, ...]


def plan_steps(
    lengths: Sequence[int],
    *,
    rows_per_step: int,
    epochs: float,
    tokens_per_microbatch: int,
    seed: int,
) -> list[OptimiserStep]:
    """The optimiser steps of a run.

    Every epoch is a fresh seeded shuffle of all rows, and a step takes the next
    ``rows_per_step``; the last step of an epoch may be smaller. Only *inside* a step are rows
    sorted by length and cut into microbatches, which changes no gradient: a step's loss is
    normalised over all its supervised tokens.

    Args:
        lengths: tokens per row.
        rows_per_step: trajectories per optimiser step.
        epochs: passes over the rows; 1.5 is one and a half.
        tokens_per_microbatch: the most tokens (padding included) that run at once; a longer row
            runs alone.
        seed: of the shuffles.

    Raises:
        ValueError: there is no row, or a setting is not positive.
    """
    if not lengths:
        raise ValueError("there is no row to train on")
    if rows_per_step < 1 or epochs <= 0 or tokens_per_microbatch < 1:
        raise ValueError("rows per step, epochs and tokens per microbatch must be positive")
    draws = random.Random(seed)
    remaining = max(1, round(epochs * len(lengths)))
    steps: list[OptimiserStep] = []
    while remaining > 0:
        order = list(range(len(lengths)))
        draws.shuffle(order)
        order = order[:remaining]
        remaining -= len(order)
        for start in range(0, len(order), rows_per_step):
            chosen = order[start : start + rows_per_step]
            steps.append(_microbatches(chosen, lengths, tokens_per_microbatch))
    return steps


def _microbatches(rows: Sequence[int], lengths: Sequence[int], budget: int) -> OptimiserStep:
    ordered = sorted(rows, key=lambda row: (-lengths[row], row))
    batches: list[list[int]] = []
    for row in ordered:
        # The first row of a microbatch is its longest: it sets the padded length.
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return tuple(tuple(batch) for batch in batches)
