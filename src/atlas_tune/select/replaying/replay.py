"""Measured necessity: remove a step, replay the others, and see what the run loses.

R(τ) - R(τ without t), PABU's removal replay (arXiv 2602.09138): no model, no network, T + 1
replays of the recorded actions. R is the return, the sum of the rewards. A step that only gathers
information loses nothing here, because the recorded actions that used the information are played
all the same; and of two steps that each suffice, neither is necessary. The measures ``pairs`` and
``minimal`` find those too (:mod:`atlas_tune.select.replaying.replay_subsets`).

Many necessary steps lose the same, mostly everything; which of them a budget keeps is then drawn
by lot (see :func:`atlas_tune.trajectory.selection.choose`). Whether a later action becomes
inadmissible without a step, and how many do, stands in the label's reason, not in its score: as a
tie-break it would always prefer how a run begins to how it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from atlas_tune.select.base import Alone, CannotLabel, Cost, SelectorOptions
from atlas_tune.select.replaying.divergence import ReplayDiverged, check_outcome
from atlas_tune.select.replaying.playback import Environments, Move, Playback, moves_of, play
from atlas_tune.select.replaying.removals import (
    Consequence,
    Finding,
    Removals,
    consequence_of,
    each_alone,
)
from atlas_tune.select.replaying.replay_subsets import in_pairs, minimal, most_steps
from atlas_tune.trajectory import Kind, StepLabel, Trajectory

if TYPE_CHECKING:
    from atlas_tune.environments.base import TextEnv

__all__ = [
    "Consequence",
    "Move",
    "Playback",
    "ReplayDiverged",
    "ReplayOptions",
    "ReplaySelector",
    "consequence_of",
    "moves_of",
    "play",
]


class ReplayOptions(SelectorOptions):
    """The settings of ``replay``."""

    measure: Literal["single", "pairs", "minimal"] = "single"
    """Remove each step alone; also two by two those not necessary alone; or all that can go."""
    max_pairs: int = Field(default=500, ge=1)
    """The most pairs of a trajectory that measure ``pairs`` tries; the likeliest come first."""
    tolerate_divergence: bool = False
    """Label a run whose replay ends otherwise than recorded too, if the replay earns something."""


class ReplaySelector(Alone):
    """Scores every step by the return that the run loses without it."""

    name = "replay"

    def __init__(
        self, make_environment: Callable[[str], TextEnv], options: ReplayOptions | None = None
    ) -> None:
        """``make_environment`` builds an environment by name; each is built once and kept."""
        self.options = options or ReplayOptions()
        self._environments = Environments(make_environment)
        self.version = _version(self.options)

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """A label for every agent step: a candidate where the run loses return without it.

        Its reason also says where the replayed observations are not the recorded ones.

        Raises:
            CannotLabel: the trajectory acts through tool calls or names no task that can be
                played again.
            ReplayDiverged: its actions do not lead to its outcome any more.
        """
        # Before anything is built for it: what acts through tool calls cannot be played anywhere.
        moves_of(trajectory)
        run = Removals(self._environments.of(trajectory), trajectory)
        note = check_outcome(trajectory, run.whole, self.options.tolerate_divergence)
        found = self._measured(run)
        unread = Finding(False, 0.0, "no action could be read in this step")
        return [
            self._label(trajectory, step.step_id, found.get(step.step_id, unread), note)
            for step in trajectory.agent_steps
        ]

    def cost(self, trajectories: Iterable[Trajectory]) -> Cost:
        """The actions that would be played, at most; counted without building an environment."""
        return Cost(env_steps=sum(map(self._most_steps, trajectories)))

    def _most_steps(self, trajectory: Trajectory) -> int:
        if trajectory.environment is None:
            return 0
        try:
            moves = len(moves_of(trajectory))
        except CannotLabel:
            return 0
        return most_steps(moves, self.options.measure, self.options.max_pairs)

    def _measured(self, run: Removals) -> dict[int, Finding]:
        if self.options.measure == "pairs":
            return in_pairs(run, self.options.max_pairs)
        return minimal(run) if self.options.measure == "minimal" else each_alone(run)[0]

    def _label(
        self, trajectory: Trajectory, step_id: int, found: Finding, note: str | None
    ) -> StepLabel:
        return StepLabel(
            trajectory.trajectory_id,
            step_id,
            None if found.critical else Kind.NONE,
            self.source,
            score=found.score,
            reason=f"{found.reason}; {note}" if note else found.reason,
        )


def _version(options: ReplayOptions) -> str:
    """
    >>> _version(ReplayOptions()), _version(ReplayOptions(measure="pairs", max_pairs=9))
    ('2', '2+measure=pairs,max_pairs=9')
    """
    told = []
    if options.measure != "single":
        told.append(f"measure={options.measure}")
    if options.measure == "pairs":
        told.append(f"max_pairs={options.max_pairs}")
    if options.tolerate_divergence:
        told.append("tolerate_divergence=true")
    # 2: reasons tell of observations that differ. Kinds and scores are those of version 1.
    return "2" + ("+" + ",".join(told) if told else "")
