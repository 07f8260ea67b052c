"""From labels to selections, for whole sets of trajectories."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from atlas_tune.select.base import Selector
from atlas_tune.select.labelling import Unlabelled, label_all, same_source
from atlas_tune.trajectory import (
    PAPER_BUDGET,
    Selection,
    StepLabel,
    Trajectory,
    choose,
    standing,
    with_corrections,
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
    of_source = with_corrections(labels, lambda source: same_source(source, selector.source))
    by_trajectory = standing(of_source)
    unique = {trajectory.trajectory_id: trajectory for trajectory in trajectories}
    return [
        choose(trajectory, by_trajectory[trajectory_id], share, rule)
        for trajectory_id, trajectory in unique.items()
        if trajectory_id in by_trajectory
    ]
