"""How far the replay of a run is from its recording, and what follows from that.

A replay that ends otherwise than the recording measures another run, so it is refused unless the
user wants it all the same. Where only observations differ, the outcome still stands: the run is
labelled, and its labels say so.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from atlas_tune.agents.react import parse_turn
from atlas_tune.select.base import CannotLabel
from atlas_tune.select.replaying.playback import Playback
from atlas_tune.trajectory import Trajectory

WORDS = 1000
"""The most words of an observation whose similarity is told: comparing takes quadratic time."""


class ReplayDiverged(CannotLabel):
    """The recorded actions no longer lead to the recorded outcome, so nothing can be measured."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """The observations of a replay beside the recorded ones."""

    compared: int
    """Observations that were both recorded and given again."""
    differing: int
    first: int | None
    """The step of the first that differs."""
    similarity: float
    """Mean over those that differ, by words: 2 · common / all, as difflib's ratio; else 1."""

    def __str__(self) -> str:
        return (
            f"{self.differing} of {self.compared} observations differ from the recording "
            f"(first at step {self.first}, similarity {self.similarity:.2f})"
        )


def divergence(trajectory: Trajectory, replayed: Playback) -> Divergence:
    """Compare what was observed; steps that the replay did not reach are not compared.

    Recordings may frame the environment's words ("Instruction:…"), so an observation that contains
    the replayed one, whatever the white space, is the same.
    """
    compared = 0
    ratios: dict[int, float] = {}
    for step in trajectory.agent_steps:
        if step.observation is None or step.step_id not in replayed.observations:
            continue
        compared += 1
        recorded = _folded(step.observation.text)
        answer = _folded(replayed.observations[step.step_id])
        if answer not in recorded:
            words = recorded.split()[:WORDS], answer.split()[:WORDS]
            ratios[step.step_id] = difflib.SequenceMatcher(None, *words, autojunk=False).ratio()
    mean = sum(ratios.values()) / len(ratios) if ratios else 1.0
    return Divergence(compared, len(ratios), next(iter(ratios), None), mean)


def check_outcome(trajectory: Trajectory, replayed: Playback, tolerate: bool = False) -> str | None:
    """What labels have to say of how the replay differs from the recording; None if it does not.

    Args:
        trajectory: as recorded. Where no outcome is recorded, none can differ.
        replayed: all of its actions, played again.
        tolerate: go on with a replay that ends otherwise, as long as it earns something: what is
            measured then is the replayed run.

    Raises:
        ReplayDiverged: the replay ends otherwise than the recording.
    """
    found = divergence(trajectory, replayed)
    observed = str(found) if found.differing else None
    recorded = _contradicted(trajectory, replayed)
    if recorded is None:
        return observed
    ending = f"{'succeeds' if replayed.success else 'does not succeed'} "
    ending += f"(return {replayed.reward:.2f})"
    if tolerate and replayed.reward > 0:
        told = f"recorded with {recorded}, but the replay {ending}"
        return f"{told}, and {observed}" if observed else told
    if replayed.reward > 0:
        remedy = "To label it by what the replay earns all the same, set tolerate_divergence."
    elif tolerate:
        remedy = "A replay that earns nothing has nothing to lose, so it cannot be tolerated."
    else:
        remedy = ""
    raise ReplayDiverged(
        f"Trajectory {trajectory.trajectory_id[:12]} was recorded with {recorded}, but its replay "
        f"in {trajectory.environment} {ending}: {_first_difference(trajectory, replayed)}. "
        + (f"In all, {observed}. " if observed else "")
        + f"The environment or the task is not the one of the recording. {remedy}".strip()
    )


def _contradicted(trajectory: Trajectory, replayed: Playback) -> str | None:
    """The recorded outcome where the replay's is another one."""
    recorded = trajectory.outcome
    if recorded.success is not None:
        ended = "a success" if recorded.success else "a failure"
        return None if recorded.success == replayed.success else ended
    if recorded.reward is not None:
        # Rewards of foreign recordings are on other scales; that something was earned is common.
        agrees = (recorded.reward > 0) == (replayed.reward > 0)
        return None if agrees else f"reward {recorded.reward:g}"
    return None


def _first_difference(trajectory: Trajectory, replayed: Playback) -> str:
    for step in trajectory.agent_steps:
        if step.observation is None or parse_turn(step.message).action is None:
            continue
        if step.step_id not in replayed.observations:
            return f"the replay ends before step {step.step_id}"
        recorded = _folded(step.observation.text)
        answer = _folded(replayed.observations[step.step_id])
        if answer not in recorded:
            return (
                f"step {step.step_id} was answered '{_short(recorded)}' "
                f"and is now answered '{_short(answer)}'"
            )
    return "no observation differs"


def _folded(text: str) -> str:
    return " ".join(text.split())


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"
