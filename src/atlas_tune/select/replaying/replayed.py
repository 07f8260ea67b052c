"""How a run ends when its recorded actions are played again in its environment.

For runs that record no outcome, as AgentTraj-L's do not: there a replay is what can tell whether
a run ever succeeds and whether its task was done before it began.
"""

from __future__ import annotations

from collections.abc import Callable

from atlas_tune.environments.base import TextEnv
from atlas_tune.errors import UsageError
from atlas_tune.select.base import CannotLabel
from atlas_tune.select.replaying.playback import moves_of, play
from atlas_tune.trajectory import Trajectory
from atlas_tune.trajectory.filters import Verdict, recorded


class Replayer:
    """Judges a run by what it records and, where that says nothing, by playing it again."""

    def __init__(self, make_environment: Callable[[str], TextEnv]) -> None:
        """``make_environment`` builds an environment by name; each is built once and kept."""
        self._make = make_environment
        self._environments: dict[str, TextEnv | None] = {}
        self.replayed = 0
        """How many runs were played again."""

    def judge(self, trajectory: Trajectory) -> Verdict:
        """The verdict; what cannot be replayed keeps that of :func:`recorded`."""
        told = recorded(trajectory)
        env = self._environment(trajectory.environment)
        if env is None or (told.succeeds is not None and told.starts_finished is not None):
            return told
        try:
            moves = moves_of(trajectory)
            _, info = env.reset_to(trajectory)
            finished = bool(info["success"])
            succeeds = finished or play(env, trajectory, moves).success
        except (UsageError, CannotLabel):
            return told
        self.replayed += 1
        return Verdict(
            succeeds if told.succeeds is None else told.succeeds,
            finished if told.starts_finished is None else told.starts_finished,
        )

    def _environment(self, name: str | None) -> TextEnv | None:
        if name is None:
            return None
        if name not in self._environments:
            try:
                self._environments[name] = self._make(name)
            except UsageError:
                self._environments[name] = None
        return self._environments[name]
