"""Two arms on the same tasks, as one matrix of differences.

Legend: ``S`` training seeds, ``T`` tasks, ``B`` bootstrap draws. A missing cell is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

Runs = Mapping[int | None, Mapping[str, float]]
"""What an arm scored: training seed, then task id, then success (0 or 1) or reward."""
Array = NDArray[np.float64]


def paired_differences(arm: Runs, against: Runs) -> Array:
    """Arm minus other arm, shape ``(S, T)``: rows are seeds, columns tasks, both sorted.

    A model without a training seed (the untuned one, under the single key None) is held against
    every seed of the other arm. A cell that one of the two lacks is NaN; a task or seed that has
    no cell at all is left out.

    Raises:
        ValueError: the arms have no seed in common, or no task in common.
    """
    seeds = _seeds(arm, against)
    cells = {
        (s, task): float(mine[task]) - float(theirs[task])
        for s, (mine, theirs) in enumerate(seeds)
        for task in mine.keys() & theirs.keys()
    }
    if not cells:
        raise ValueError("A paired comparison needs both arms on the same tasks; none is shared.")
    rows = {s: i for i, s in enumerate(sorted({s for s, _ in cells}))}
    columns = {task: i for i, task in enumerate(sorted({task for _, task in cells}))}
    differences_ST = np.full((len(rows), len(columns)), np.nan)
    for (s, task), value in cells.items():
        differences_ST[rows[s], columns[task]] = value
    return differences_ST


def _seeds(arm: Runs, against: Runs) -> list[tuple[Mapping[str, float], Mapping[str, float]]]:
    if arm.keys() != {None} and against.keys() == {None}:
        return [(arm[seed], against[None]) for seed in arm]
    if arm.keys() == {None} and against.keys() != {None}:
        return [(arm[None], against[seed]) for seed in against]
    shared = [seed for seed in arm if seed in against]
    if not shared:
        raise ValueError("A paired comparison needs both arms with the same seeds; none is shared.")
    return [(arm[seed], against[seed]) for seed in shared]


def as_matrix(differences: ArrayLike) -> Array:
    """Checked differences, shape ``(S, T)``; a plain list over tasks is one seed.

    Seeds and tasks without any cell are left out: they say nothing, and must not count.

    Raises:
        ValueError: the array has more than two axes, holds an infinity, or has no cell.
    """
    matrix_ST = np.atleast_2d(np.asarray(differences, dtype=float))
    if matrix_ST.ndim != 2:
        raise ValueError(f"Differences are seeds x tasks; the array has {matrix_ST.ndim} axes.")
    if np.isinf(matrix_ST).any():
        raise ValueError("A difference is infinite; give NaN for a cell that is missing.")
    held_ST = ~np.isnan(matrix_ST)
    if not held_ST.any():
        raise ValueError("There is no pair to compare: evaluate both arms on the same tasks.")
    kept: Array = matrix_ST[held_ST.any(axis=1)][:, held_ST.any(axis=0)]
    return kept
