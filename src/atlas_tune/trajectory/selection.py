"""Selections: for each trajectory, the steps that training will see, under a budget."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atlas_tune.trajectory.fields import an_object, called, typed
from atlas_tune.trajectory.labels import Kind, StepLabel
from atlas_tune.trajectory.model import InvalidTrajectory, Trajectory

PAPER_BUDGET = 0.3
"""m of the paper (section 3): at most 30% of the steps of a trajectory."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The steps of one trajectory that carry loss; ``rule`` says how they were chosen."""

    trajectory_id: str
    step_ids: tuple[int, ...]
    rule: str
    weights: tuple[float, ...] | None = None
    """Per step, how much each of its tokens counts in the loss; all alike where it is None."""

    @property
    def weight_of(self) -> dict[int, float]:
        """The weights by step id, where there are any."""
        return dict(zip(self.step_ids, self.weights or (), strict=False))

    def with_others(self, trajectory: Trajectory, weight: float) -> Selection:
        """All of the agent's own steps: the selected ones as they are, others of this weight."""
        selected = dict.fromkeys(self.step_ids, 1.0) | self.weight_of
        step_ids = tuple(step.step_id for step in trajectory.agent_steps)
        weights = tuple(selected.get(step_id, weight) for step_id in step_ids)
        return Selection(self.trajectory_id, step_ids, self.rule, weights)


def budget_steps(steps: int, share: float) -> int:
    """The most steps that may be selected out of ``steps``: max(1, floor(share · steps)).

    The floor keeps the paper's ceiling (section 3, |C(τ)| ≤ m·T); the minimum of one keeps
    trajectories of one to three steps in the data.

    Raises:
        ValueError: the share lies outside (0, 1].
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"a budget is a share of the steps in (0, 1], not {share}")
    # 0.3 · 10 is 2.999… in floating point: a share that means a whole number must give it.
    return max(1, math.floor(share * steps + 1e-9))


def choose(
    trajectory: Trajectory, labels: Sequence[StepLabel], share: float, rule: str
) -> Selection:
    """The selection that labels imply: the best candidates, at most the budget.

    A step is a candidate unless its kind is ``Kind.NONE``. Higher scores go first, ties by lot
    (see :func:`_lot`), judges' labels (no score) in their own order after scored ones. Where no
    step is a candidate the selection is empty and the trajectory carries no loss.

    Raises:
        InvalidTrajectory: a label names a step that is not one of the agent's own.
    """
    own = {step.step_id for step in trajectory.agent_steps}
    for label in labels:
        if label.step_id not in own:
            raise InvalidTrajectory(
                f"label of {label.source.name} names step {label.step_id} of trajectory "
                f"{trajectory.trajectory_id[:12]}, which is not one of the agent's own steps"
            )
    candidates = [label for label in labels if label.kind is not Kind.NONE]
    scored = sorted(
        (label for label in candidates if label.score is not None),
        key=lambda label: (-(label.score or 0.0), _lot(label)),
    )
    named = [label for label in candidates if label.score is None]
    ranked = list(dict.fromkeys(label.step_id for label in [*scored, *named]))
    kept = ranked[: budget_steps(len(own), share)]
    return Selection(trajectory.trajectory_id, tuple(sorted(kept)), rule)


def _lot(label: StepLabel) -> str:
    """A draw that depends on the trajectory and the step alone, to order equal scores.

    Equal scores are the rule where criticality is measured: every necessary step loses the whole
    return. "The earlier step first" would then always train how a run begins and never how it
    ends: in the quickstart's TextCraft runs not one final craft was selected.
    """
    return hashlib.sha256(f"{label.trajectory_id}:{label.step_id}".encode()).hexdigest()


def dump_selection(selection: Selection) -> dict[str, Any]:
    """The JSON object of a selection."""
    record = {
        "trajectory_id": selection.trajectory_id,
        "step_ids": list(selection.step_ids),
        "rule": selection.rule,
    }
    return record if selection.weights is None else record | {"weights": list(selection.weights)}


def parse_selection(record: Any) -> Selection:
    """The selection of a JSON object.

    Raises:
        InvalidTrajectory: a field is missing, unknown or of the wrong type.
    """
    where = "selection"
    record = an_object(record, where, "trajectory_id step_ids rule weights")
    step_ids = typed(record, "step_ids", list, where, required=True)
    for step_id in step_ids:
        if not isinstance(step_id, int) or isinstance(step_id, bool):
            raise InvalidTrajectory(
                f"{where} has a step id that is {called(step_id)}, not a whole number"
            )
    if len(set(step_ids)) < len(step_ids):
        raise InvalidTrajectory(f"{where} names a step twice: {step_ids}")
    return Selection(
        trajectory_id=typed(record, "trajectory_id", str, where, required=True),
        step_ids=tuple(step_ids),
        rule=typed(record, "rule", str, where, required=True),
        weights=_weights(record, where, len(step_ids)),
    )


def _weights(record: dict[str, Any], where: str, steps: int) -> tuple[float, ...] | None:
    weights = typed(record, "weights", list, where)
    if weights is None:
        return None
    for weight in weights:
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not 0 < weight < math.inf:
            raise InvalidTrajectory(
                f"{where} has a weight that is {weight!r}, not a number above 0"
            )
    if len(weights) != steps:
        raise InvalidTrajectory(f"{where} has {len(weights)} weights for {steps} steps")
    return tuple(float(weight) for weight in weights)
