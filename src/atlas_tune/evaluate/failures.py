"""How an episode failed: one kind each, told from what the agent said and what came back."""

from __future__ import annotations

from collections import Counter
from typing import Literal, get_args

from atlas_tune.agents.react import parse_turn
from atlas_tune.evaluate.rollouts import Rollout
from atlas_tune.trajectory import Step
from atlas_tune.trajectory.canonical import canonical_json

Failure = Literal["error", "format", "loop", "invalid", "step limit", "wrong action"]
FAILURES: tuple[Failure, ...] = get_args(Failure)
"""In the order in which they are looked for: an episode has the first that fits."""
LOOP = 3
"""An action that is answered the same so often is a loop."""


def failure_of(rollout: Rollout, max_steps: int) -> Failure | None:
    """Why an episode did not succeed; None where it did.

    - *error*: the environment was lost, or the conversation outgrew the model;
    - *format*: no action could be read from half of the replies or more;
    - *loop*: the same action got the same answer ``LOOP`` times or more;
    - *invalid*: the environment could not take half of the actions or more;
    - *step limit*: all of ``max_steps`` turns were used up;
    - *wrong action*: the episode ended early, and not in success.
    """
    if rollout.success:
        return None
    if rollout.error is not None:
        return "error"
    steps = rollout.steps
    unread = sum(_action(step) is None for step in steps)
    if 2 * unread >= len(steps):
        return "format"
    moves = Counter(
        (_action(step), step.observation.text if step.observation else "") for step in steps
    )
    if max(moves.values()) >= LOOP:
        return "loop"
    if 2 * (rollout.invalid_turns - unread) >= len(steps):
        return "invalid"
    return "step limit" if rollout.turns >= max_steps else "wrong action"


def _action(step: Step) -> str | None:
    """What a step does: its first tool call, or the action of its text; None if nobody can tell."""
    if step.tool_calls:
        call = step.tool_calls[0]
        return canonical_json([call.function_name, call.arguments])
    return parse_turn(step.message).action
