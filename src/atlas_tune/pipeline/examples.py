"""The training trajectories that the report shows in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest

from atlas_tune.report.results import Example, ExampleStep
from atlas_tune.trajectory import Selection, StepLabel, Trajectory

EXAMPLES = 5


def examples(
    trajectories: Sequence[Trajectory],
    selections: Mapping[str, Mapping[str, Selection]],
    labels: Mapping[str, Mapping[str, Sequence[StepLabel]]],
    proposed: str | None,
) -> tuple[Example, ...]:
    """The longest trajectories of each environment in turn: they have the most to choose from."""
    by_environment: dict[str, list[Trajectory]] = {}
    for trajectory in sorted(trajectories, key=lambda t: (-len(t.agent_steps), t.trajectory_id)):
        by_environment.setdefault(trajectory.environment or "unknown", []).append(trajectory)
    in_turn = chain.from_iterable(zip_longest(*by_environment.values()))
    shown = [trajectory for trajectory in in_turn if trajectory is not None][:EXAMPLES]
    return tuple(
        Example(
            trajectory_id=t.trajectory_id,
            environment=t.environment,
            task_id=t.task_id,
            reward=t.outcome.reward,
            success=t.outcome.success,
            steps=tuple(_example_steps(t, selections, labels.get(proposed or "", {}))),
        )
        for t in shown
    )


def _example_steps(
    trajectory: Trajectory,
    selections: Mapping[str, Mapping[str, Selection]],
    labels: Mapping[str, Sequence[StepLabel]],
) -> list[ExampleStep]:
    said = {label.step_id: label for label in labels.get(trajectory.trajectory_id, ())}
    chosen = {
        arm: set(found[trajectory.trajectory_id].step_ids)
        for arm, found in selections.items()
        if trajectory.trajectory_id in found
    }
    steps = []
    for step in trajectory.steps:
        label = said.get(step.step_id)
        steps.append(
            ExampleStep(
                step_id=step.step_id,
                source=step.source,
                text=step.message,
                observation=step.observation.text if step.observation else None,
                copied=step.is_copied_context,
                critical={arm: step.step_id in ids for arm, ids in chosen.items()},
                kind=str(label.kind) if label and label.kind else None,
                score=label.score if label else None,
                reason=label.reason if label else None,
            )
        )
    return steps
