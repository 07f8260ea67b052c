"""Measured necessity: remove a step, replay the others, and see what the run loses.

R(τ) - R(τ without t), PABU's removal replay (arXiv 2602.09138): no model, no network, T + 1
replays of the recorded actions. R is the return, the sum of the rewards. A step that only gathers
information loses nothing here, because the recorded actions that used the information are played
all the same; and of two steps that each suffice, neither is necessary.

Many necessary steps lose the same, mostly everything; which of them a budget keeps is then drawn
by lot (see :func:`atlas_tune.trajectory.selection.choose`). How many later actions become
inadmissible without a step stands in the label's reason, not in its score: as a tie-break it would
always prefer how a run begins to how it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atlas_tune.agents.react import parse_turn
from atlas_tune.errors import UsageError
from atlas_tune.select.base import Alone, CannotLabel
from atlas_tune.trajectory import Kind, StepLabel, Trajectory

if TYPE_CHECKING:
    from atlas_tune.environments.base import TextEnv

DECIMALS = 6
"""Losses are rounded to so many: rewards are coarser by far, float noise is finer by far."""


class ReplayDiverged(CannotLabel):
    """The recorded actions no longer lead to the recorded outcome, so nothing can be measured."""


@dataclass(frozen=True, slots=True)
class Move:
    """A recorded action and the step that took it."""

    step_id: int
    action: str


@dataclass(frozen=True, slots=True)
class Playback:
    """What came of playing moves: the return, and per step played its answer and admissibility."""

    reward: float
    success: bool
    observations: dict[int, str]
    admissible: dict[int, bool]


class ReplaySelector(Alone):
    """Scores every step by the return that the run loses without it."""

    name = "replay"

    def __init__(self, make_environment: Callable[[str], TextEnv]) -> None:
        """``make_environment`` builds an environment by name; each is built once and kept."""
        self._make = make_environment
        self._environments: dict[str, TextEnv] = {}

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """A label for every agent step: a candidate where the run loses return without it.

        Raises:
            CannotLabel: the trajectory acts through tool calls or names no task that can be
                played again.
            ReplayDiverged: its actions do not lead to its outcome any more.
        """
        moves = moves_of(trajectory)
        env = self._environment(trajectory)
        try:
            whole = play(env, trajectory, moves)
        except UsageError as error:
            raise CannotLabel(str(error)) from error
        _check_outcome(trajectory, whole)
        labels = []
        by_step = {move.step_id: move for move in moves}
        for step in trajectory.agent_steps:
            move = by_step.get(step.step_id)
            if move is None:
                label = self._none(trajectory, step.step_id, "no action could be read in this step")
            elif step.step_id not in whole.admissible:
                label = self._none(trajectory, step.step_id, "the run had ended before this step")
            else:
                rest = [other for other in moves if other is not move]
                label = self._compare(trajectory, move, whole, play(env, trajectory, rest), moves)
            labels.append(label)
        return labels

    def _environment(self, trajectory: Trajectory) -> TextEnv:
        name = trajectory.environment
        if name is None:
            raise CannotLabel(
                "the trajectory names no environment, so it cannot be replayed: "
                "give it one when importing"
            )
        if name not in self._environments:
            try:
                self._environments[name] = self._make(name)
            except UsageError as error:
                raise CannotLabel(str(error)) from error
        return self._environments[name]

    def _compare(
        self,
        trajectory: Trajectory,
        move: Move,
        whole: Playback,
        without: Playback,
        moves: Sequence[Move],
    ) -> StepLabel:
        refused = [
            later
            for later in moves
            if whole.admissible.get(later.step_id)
            and without.admissible.get(later.step_id) is False
        ]
        loss = round(whole.reward - without.reward, DECIMALS)
        if loss <= 0:
            reason = f"without this step the run {_ends(whole.reward, without.reward)}"
            return self._none(trajectory, move.step_id, reason, loss)
        return StepLabel(
            trajectory.trajectory_id,
            move.step_id,
            None,
            self.source,
            score=loss,
            reason=f"without this step the run {_ends(whole.reward, without.reward)}; "
            + _consequence(refused, last=move is moves[-1]),
        )

    def _none(
        self, trajectory: Trajectory, step_id: int, reason: str, score: float = 0.0
    ) -> StepLabel:
        return StepLabel(
            trajectory.trajectory_id, step_id, Kind.NONE, self.source, score=score, reason=reason
        )


def play(env: TextEnv, trajectory: Trajectory, moves: Sequence[Move]) -> Playback:
    """Play moves in the task of a trajectory, from its start until they or the episode end."""
    env.reset_to(trajectory)
    reward, success = 0.0, False
    observations: dict[int, str] = {}
    admissible: dict[int, bool] = {}
    for move in moves:
        observation, gained, terminated, truncated, info = env.step(move.action)
        reward += gained
        success = bool(info["success"])
        observations[move.step_id] = observation
        admissible[move.step_id] = bool(info["valid"])
        if terminated or truncated:
            break
    return Playback(reward, success, observations, admissible)


def moves_of(trajectory: Trajectory) -> list[Move]:
    """The actions of a run. A turn without a readable one changed nothing and is left out."""
    moves = []
    for step in trajectory.agent_steps:
        if step.tool_calls:
            raise CannotLabel(
                f"step {step.step_id} acts through tool calls, and replay plays only actions "
                "written as text ('Action: …')"
            )
        action = parse_turn(step.message).action
        if action is not None:
            moves.append(Move(step.step_id, action))
    return moves


def _ends(whole: float, without: float) -> str:
    """
    >>> _ends(1.0, 0.0)
    'ends with return 0.00 instead of 1.00'
    >>> _ends(0.9921, 0.9918)
    'ends with return 0.9918 instead of 0.9921'
    """
    for digits in (2, 4, 6):
        now, before = f"{without:.{digits}f}", f"{whole:.{digits}f}"
        if now != before:
            return f"ends with return {now} instead of {before}"
    return f"still ends with return {whole:.2f}"


def _consequence(refused: Sequence[Move], last: bool) -> str:
    if not refused:
        return "it is the last action" if last else "every later action is still admissible"
    first = refused[0]
    text = f"the later action '{first.action}' (step {first.step_id}) then fails"
    if len(refused) > 1:
        text += f", and {len(refused) - 1} more after it"
    return text


def _check_outcome(trajectory: Trajectory, replayed: Playback) -> None:
    recorded = trajectory.outcome
    if recorded.success is not None:
        agrees = recorded.success == replayed.success
        ended = "a success" if recorded.success else "a failure"
    elif recorded.reward is not None:
        # Rewards of foreign recordings are on other scales; that something was earned is common.
        agrees = (recorded.reward > 0) == (replayed.reward > 0)
        ended = f"reward {recorded.reward:g}"
    else:
        return
    if agrees:
        return
    verb = "succeeds" if replayed.success else "does not succeed"
    raise ReplayDiverged(
        f"Trajectory {trajectory.trajectory_id[:12]} was recorded with {ended}, but its replay in "
        f"{trajectory.environment} {verb} (return {replayed.reward:.2f}): "
        f"{_first_difference(trajectory, replayed)}. The environment or the task is not the one "
        "of the recording."
    )


def _first_difference(trajectory: Trajectory, replayed: Playback) -> str:
    for step in trajectory.agent_steps:
        if step.observation is None or parse_turn(step.message).action is None:
            continue
        if step.step_id not in replayed.observations:
            return f"the replay ends before step {step.step_id}"
        recorded = _folded(step.observation.text)
        answer = _folded(replayed.observations[step.step_id])
        # Recordings may frame the environment's words ("Instruction:\n…"): contained is equal.
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
