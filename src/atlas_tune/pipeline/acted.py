"""What the steps that an arm trains do, and what its models do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from atlas_tune.agents.react import parse_turn
from atlas_tune.pipeline.evaluations import Evaluations
from atlas_tune.recipe import Recipe
from atlas_tune.report.results import Actions
from atlas_tune.trajectory import Selection, Step, Trajectory

NONE = "(none)"


def actions(
    recipe: Recipe,
    done: Evaluations,
    trajectories: Sequence[Trajectory],
    selections: Mapping[str, Mapping[str, Selection]],
) -> tuple[Actions, ...]:
    """Counts by place and arm, of what is done.

    Args:
        recipe: says to which environment a place belongs.
        done: the evaluations.
        trajectories: the training runs.
        selections: by arm and trajectory.
    """
    found = []
    for where in recipe.evaluate.environments:
        runs = [run for run in trajectories if run.environment == where.environment]
        for arm in done.arms:
            rollouts = [one for some in done.of(arm, where.place).values() for one in some]
            if not rollouts:
                continue
            taken = (step for rollout in rollouts for step in rollout.steps)
            found.append(
                Actions(
                    arm=arm,
                    environment=where.place,
                    trained=_counted(_selected(runs, selections.get(arm, {}))),
                    taken=_counted(taken),
                )
            )
    return tuple(found)


def _selected(runs: Iterable[Trajectory], selections: Mapping[str, Selection]) -> Iterable[Step]:
    for run in runs:
        chosen = selections.get(run.trajectory_id)
        if chosen is not None:
            yield from (step for step in run.agent_steps if step.step_id in chosen.step_ids)


def _counted(steps: Iterable[Step]) -> dict[str, int]:
    return dict(Counter(map(_word, steps)).most_common())


def _word(step: Step) -> str:
    """What a step does: the tool that it calls first, or the first word of its action."""
    if step.tool_calls:
        return step.tool_calls[0].function_name
    action = parse_turn(step.message).action
    return action.split()[0] if action else NONE
