"""What a run loses without some of its steps, and the words for it.

A later action that was admissible and is now refused is one way to lose; a lower return while
every later action is still admissible is another. Labels tell the two apart in their reasons,
which :func:`consequence_of` reads back.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from atlas_tune.select.replaying.playback import Move, Playback, moves_of, play, play_whole
from atlas_tune.trajectory import Kind, StepLabel, Trajectory

if TYPE_CHECKING:
    from atlas_tune.environments.base import TextEnv

DECIMALS = 6
"""Losses are rounded to so many: rewards are coarser by far, float noise is finer by far."""


class Removals:
    """A run that is played whole and without some of its steps."""

    def __init__(self, env: TextEnv, trajectory: Trajectory) -> None:
        """Plays it whole.

        Raises:
            CannotLabel: it acts through tool calls or names no task that can be played again.
        """
        self._env = env
        self.trajectory = trajectory
        self.moves: Sequence[Move] = moves_of(trajectory)
        self.whole = play_whole(env, trajectory, self.moves)

    def without(self, step_ids: Collection[int]) -> Playback:
        """The playback of all other moves."""
        rest = [move for move in self.moves if move.step_id not in step_ids]
        return play(self._env, self.trajectory, rest)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a measure says of one step."""

    critical: bool
    score: float
    reason: str


class Consequence(StrEnum):
    """What happens to a run without a step."""

    REFUSED = "refused"
    """Return is lost, and a later action is no longer admissible."""
    LOWER = "lower"
    """Return is lost while every later action, if there is one, is still admissible."""
    NOTHING = "nothing"
    """No return is lost."""


_LOST = re.compile(
    r"ends with return \S+ instead of \S+; "
    r"(?:(the later action ')|every later action is |it is the last action)"
)


def consequence_of(label: StepLabel) -> Consequence:
    """What a label of ``replay`` says happens without its step.

    In a label of measure ``pairs`` that names a partner it is what happens without both; in one of
    ``minimal``, what happens to the minimal run without its step.

    Raises:
        ValueError: the label is not one of ``replay``.
    """
    if label.source.name != "replay":
        raise ValueError(f"a label of '{label.source.name}' tells no consequence; replay's do")
    if label.kind is Kind.NONE:
        return Consequence.NOTHING
    found = _LOST.search(label.reason or "")
    if found is None:
        raise ValueError(f"the reason of step {label.step_id}'s label was edited: {label.reason!r}")
    return Consequence.REFUSED if found[1] else Consequence.LOWER


def loss(whole: Playback, without: Playback) -> float:
    """R(whole) - R(without), rounded."""
    return round(whole.reward - without.reward, DECIMALS)


def ends(whole: float, without: float) -> str:
    """How a run with some return ends without a step.

    >>> ends(1.0, 0.0)
    'ends with return 0.00 instead of 1.00'
    >>> ends(0.9921, 0.9918)
    'ends with return 0.9918 instead of 0.9921'
    >>> ends(1.0, 1.0)
    'still ends with return 1.00'
    """
    for digits in (2, 4, 6):
        now, before = f"{without:.{digits}f}", f"{whole:.{digits}f}"
        if now != before:
            return f"ends with return {now} instead of {before}"
    return f"still ends with return {whole:.2f}"


def consequence(
    whole: Playback, without: Playback, moves: Sequence[Move], step_ids: Collection[int]
) -> str:
    """In words, what a loss came with: which of ``moves`` are refused without these steps."""
    refused = [
        later
        for later in moves
        if whole.admissible.get(later.step_id) and without.admissible.get(later.step_id) is False
    ]
    if not refused:
        is_last = moves[-1].step_id in step_ids
        return "it is the last action" if is_last else "every later action is still admissible"
    first = refused[0]
    text = f"the later action '{first.action}' (step {first.step_id}) then fails"
    if len(refused) > 1:
        text += f", and {len(refused) - 1} more after it"
    return text


def each_alone(run: Removals) -> tuple[dict[int, Finding], dict[int, Playback]]:
    """Measure ``single``: remove each step alone.

    Returns:
        The finding of every step that has an action, and the playback without every one of them
        that is not necessary.
    """
    findings: dict[int, Finding] = {}
    spared: dict[int, Playback] = {}
    for move in run.moves:
        step_id = move.step_id
        if step_id not in run.whole.admissible:
            # What was never played can be left out, and nothing changes.
            findings[step_id] = Finding(False, 0.0, "the run had ended before this step")
            spared[step_id] = run.whole
            continue
        without = run.without({step_id})
        lost = loss(run.whole, without)
        reason = f"without this step the run {ends(run.whole.reward, without.reward)}"
        if lost > 0:
            reason += f"; {consequence(run.whole, without, run.moves, {step_id})}"
        else:
            spared[step_id] = without
        findings[step_id] = Finding(lost > 0, lost, reason)
    return findings, spared
