"""From labels to selections, for whole sets of trajectories."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from atlas_tune.select.base import Selector
from atlas_tune.select.labelling import Unlabelled, label_all, same_source
from atlas_tune.trajectory import (
    PAPER_BUDGET,
    LabelSource,
    Selection,
    StepLabel,
    Trajectory,
    choose,
    standing,
)


@dataclass(frozen=True, slots=True)
class Selections:
    """The selections of a set of trajectories, the labels behind them, and who is missing."""

    selections: tuple[Selection, ...]
    labels: tuple[StepLabel, ...]
    unlabelled: tuple[Unlabelled, ...]


def select(
    trajectories: Sequence[Trajectory], selector: Selector, share: float = PAPER_BUDGET
) -> Selections:
    """Label and choose in memory: at most ``share`` of the steps of every trajectory.

    A trajectory that cannot be labelled has no selection and is listed under ``unlabelled``.
    """
    labels: list[StepLabel] = []
    report = label_all(trajectories, selector, labels.extend)
    chosen = choose_all(trajectories, labels, selector, share)
    return Selections(tuple(chosen), tuple(labels), report.unlabelled)


def choose_all(
    trajectories: Iterable[Trajectory],
    labels: Iterable[StepLabel],
    selector: Selector,
    share: float = PAPER_BUDGET,
) -> list[Selection]:
    """The selections that a selector's labels imply, as corrected by people.

    ``labels`` may hold labels of other sources too, such as the same selector with another seed;
    they have no part in it. Trajectories without labels get no selection.
    """
    if selector.share is not None:
        share = selector.share
    rule = f"{selector.name} {selector.version}, at most {share:g} of the steps"
    by_trajectory = standing(_of_source(labels, selector.source))
    unique = {trajectory.trajectory_id: trajectory for trajectory in trajectories}
    return [
        choose(trajectory, by_trajectory[trajectory_id], share, rule)
        for trajectory_id, trajectory in unique.items()
        if trajectory_id in by_trajectory
    ]


def _of_source(labels: Iterable[StepLabel], source: LabelSource) -> list[StepLabel]:
    """The labels of one source and the corrections of those labels, and of those corrections."""
    labels = list(labels)
    corrected = any(label.supersedes for label in labels)
    kept: list[StepLabel] = []
    ids: set[str] = set()
    for label in labels:
        if same_source(label.source, source) or (label.supersedes in ids):
            kept.append(label)
            if corrected:
                ids.add(label.label_id)
    return kept
