"""In which game a foreign run was played, told by what its agent read.

AgentTraj-L numbers its games by a list of its own, but its runs tell the room and the task.
"""

from __future__ import annotations

from collections.abc import Iterator

from atlas_tune.trajectory import Step, Trajectory

_OPENING = 4
"""A system message, the instruction, a prefill, and the first observation at the latest."""


def first_text(trajectory: Trajectory) -> str:
    """What a run's first steps say, on one line."""
    return folded(" ".join(step.message for step in trajectory.steps[:_OPENING]))


def folded(text: str) -> str:
    """A text with every run of blanks made one space."""
    return " ".join(text.split())


def recorded_moves(trajectory: Trajectory) -> Iterator[tuple[str, str]]:
    """The actions of a run and what answered each: its observation, or else the next message."""
    for step, following in zip(trajectory.steps, (*trajectory.steps[1:], None), strict=True):
        if step.source != "agent" or step.is_copied_context:
            continue
        yield _action(step.message), _answer(step, following)


def _action(message: str) -> str:
    """The line after "Action:", or a message that is nothing else."""
    lines = message.rpartition("Action:")[2].strip().splitlines()
    return lines[0] if lines else ""


def _answer(step: Step, following: Step | None) -> str:
    if step.observation is not None:
        return step.observation.text
    return following.message if following and following.source == "user" else ""
