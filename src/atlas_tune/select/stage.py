"""The selecting stage: trajectories in; a labels sidecar and a selection file out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from atlas_tune.select.base import Selector
from atlas_tune.select.labelling import Unlabelled, label_all
from atlas_tune.select.selecting import choose_all
from atlas_tune.sole_writer import sole_writer
from atlas_tune.trajectory import Selection, StepLabel, Trajectory
from atlas_tune.trajectory.jsonl import cut_torn_line
from atlas_tune.trajectory.store import append_labels, read_labels, write_selections


def select_steps(
    trajectories: Sequence[Trajectory],
    selector: Selector,
    share: float,
    labels: Path,
    selection: Path,
    on_trajectory: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[list[Selection], tuple[Unlabelled, ...]]:
    """Label what the sidecar does not hold yet, then choose at most ``share`` of the steps.

    Args:
        trajectories: what to label.
        selector: says how critical each step is.
        share: the budget.
        labels: the sidecar; labels are appended as they come, so a killed run goes on from there.
        selection: replaced by the new selections.
        on_trajectory: called with how many trajectories are labelled, of how many.

    Returns:
        The selections, and the trajectories that the selector could not label.

    Raises:
        AtlasError: nothing more can be labelled, or another process writes the sidecar.
    """
    fresh = 0

    def keep(found: list[StepLabel]) -> None:
        nonlocal fresh
        append_labels(labels, found)
        fresh += 1
        on_trajectory(fresh, len(trajectories))

    with sole_writer(labels):
        cut_torn_line(labels)
        done = list(read_labels(labels)) if labels.is_file() else []
        report = label_all(trajectories, selector, keep, done=done)
        said = list(read_labels(labels)) if labels.is_file() else []
        chosen = choose_all(trajectories, said, selector, share)
        write_selections(selection, chosen)
    return chosen, report.unlabelled
