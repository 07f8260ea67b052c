"""The steps that a measurement marks, and how far a selection takes the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from atlas_tune.progress import Tick
from atlas_tune.select.auditing.audit import audit
from atlas_tune.select.auditing.average_precision import by_lot, mean_average_precision
from atlas_tune.select.auditing.criticality import LeftOut, Reference
from atlas_tune.select.auditing.ratings import CRITICAL, Rater, compare, of_labels
from atlas_tune.select.auditing.resampling import bootstrapped, divided
from atlas_tune.select.auditing.taken import Taken
from atlas_tune.select.labelling import label_all, same_source
from atlas_tune.select.replaying.progress import ProgressOptions, ProgressSelector
from atlas_tune.select.replaying.replay import ReplaySelector
from atlas_tune.trajectory import StepLabel, Trajectory
from atlas_tune.trajectory.jsonl import cut_torn_line
from atlas_tune.trajectory.store import append_labels, read_labels

if TYPE_CHECKING:
    from atlas_tune.environments.base import TextEnv


def necessity_of(
    make_environment: Callable[[str], TextEnv],
    runs: Sequence[Trajectory],
    path: Path,
    tick: Tick,
) -> tuple[dict[str, list[StepLabel]], list[LeftOut]]:
    """What runs lose without each of their steps, measured once and kept.

    Args:
        make_environment: builds an environment by name.
        runs: what to measure.
        path: a labels sidecar; what it holds is not measured again.
        tick: told how far it is.

    Returns:
        The labels of ``replay`` by run, and the runs that cannot be replayed.
    """
    selector = ReplaySelector(make_environment)
    cut_torn_line(path)
    labels = [
        label
        for label in (read_labels(path) if path.is_file() else ())
        if same_source(label.source, selector.source)
    ]
    fresh = 0

    def keep(found: list[StepLabel]) -> None:
        nonlocal fresh
        append_labels(path, found)
        labels.extend(found)
        fresh += 1
        tick(fresh, len(runs), "runs replayed without each of their steps")

    report = label_all(runs, selector, keep, done=tuple(labels))
    bad = {one.trajectory_id: one.reason for one in report.unlabelled}
    by_run: dict[str, list[StepLabel]] = {}
    for label in labels:
        if label.trajectory_id not in bad:
            by_run.setdefault(label.trajectory_id, []).append(label)
    return by_run, [LeftOut(key, reason) for key, reason in bad.items()]


def rises_of(runs: Sequence[Trajectory], make_environment: Callable[[str], TextEnv]) -> Rater:
    """Where the score rises: by the rewards that a run records, else by those of its replay.

    Args:
        runs: those that can be replayed.
        make_environment: builds an environment by name.
    """
    selector = ProgressSelector(ProgressOptions(source="auto"), make_environment)
    return of_labels("progress", [label for run in runs for label in selector.label(run)])


def against(
    taken: Taken,
    runs: Sequence[Trajectory],
    reference: Rater,
    controls: Sequence[Mapping[str, frozenset[int]]],
    draws: int,
    seed: int,
) -> Reference:
    """How far the steps of a selection are those that a measurement marks.

    Args:
        taken: the selection.
        runs: all of them rated by the reference.
        reference: what the measurement says.
        controls: draws of as many steps of each run.
        draws: of the bootstrap by trajectory.
        seed: of the bootstrap.
    """
    said = {
        run.trajectory_id: dict.fromkeys(sorted(taken.steps[run.trajectory_id]), CRITICAL)
        for run in runs
    }
    rater = Rater(taken.name, said, takes_part=True)
    _, orders = taken.orders(runs)
    marked = {
        key: {step_id for step_id, called in steps.items() if called == CRITICAL}
        for key, steps in reference.said.items()
    }
    # Hits of the selection, its steps, and the mean hits of its controls, by trajectory.
    counts_N3 = np.array(
        [
            [
                len(taken.steps[key] & marked[key]),
                len(taken.steps[key]),
                fmean(len(control[key] & marked[key]) for control in controls),
            ]
            for key in sorted(said)
        ]
    )
    nothing = "no step is selected"
    return Reference(
        audit(compare([rater, reference], runs), draws, seed).whole,
        mean_average_precision(orders, marked, draws, seed),
        mean_average_precision(by_lot(orders), marked, draws, seed),
        bootstrapped(counts_N3, lambda c: divided(c[..., 2], c[..., 1]), draws, seed, nothing),
        bootstrapped(
            counts_N3, lambda c: divided(c[..., 0] - c[..., 2], c[..., 1]), draws, seed, nothing
        ),
    )
