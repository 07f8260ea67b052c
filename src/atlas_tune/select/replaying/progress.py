"""Progress: the steps at which a dense reward rises.

Score r_{t+1} - r_t, where r_t is what the run has earned before step t: the step's own reward. It
needs rewards along the way; where an environment pays at the end alone, only that end rises. A
step that only makes a later rise possible scores nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from atlas_tune.errors import UsageError
from atlas_tune.select.base import Alone, CannotLabel, Cost, SelectorOptions
from atlas_tune.select.replaying.divergence import check_outcome
from atlas_tune.select.replaying.playback import Environments, moves_of, play_whole
from atlas_tune.select.replaying.removals import DECIMALS
from atlas_tune.trajectory import Kind, StepLabel, Trajectory

if TYPE_CHECKING:
    from atlas_tune.environments.base import TextEnv


class ProgressOptions(SelectorOptions):
    """The settings of ``progress``."""

    source: Literal["file", "replay", "auto"] = "file"
    """Rewards as the file has them, or as the environment pays them when the run is played again;
    auto replays the runs whose file has none."""
    rewards: Literal["earned", "so_far"] = "earned"
    """What a step's recorded reward is: what it earned itself, or the score that the run then had,
    whose rise over the last recorded score (0 before the first) is then taken."""
    tolerate_divergence: bool = False
    """Also take a replay that ends otherwise than recorded, if it earns something."""


class ProgressSelector(Alone):
    """Scores every step by the reward that it earned; only a rise makes a candidate."""

    name = "progress"

    def __init__(
        self,
        options: ProgressOptions | None = None,
        make_environment: Callable[[str], TextEnv] | None = None,
    ) -> None:
        """``make_environment`` builds an environment by name; needed to replay alone.

        Raises:
            UsageError: source is ``replay`` and there is nothing to build environments with.
        """
        self.options = options or ProgressOptions()
        self._environments = None if make_environment is None else Environments(make_environment)
        if self.options.source == "replay" and self._environments is None:
            raise UsageError(
                "The selector 'progress' with source 'replay' plays trajectories again and got no "
                "environments to play them in: set make_environment in its context."
            )
        self.version = _version(self.options)

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """A label for every agent step: a candidate where the reward rises.

        Raises:
            CannotLabel: no reward is recorded and the run may not, or cannot, be replayed.
            ReplayDiverged: its actions do not lead to its outcome any more.
        """
        note = None
        if self._is_read(trajectory):
            rises = recorded_rises(trajectory, self.options.rewards)
            if not rises:
                raise CannotLabel(_no_rewards(self._environments is not None))
            missing = "no reward is recorded for this step"
        else:
            rises, note = self._replayed(trajectory)
            missing = "the replay took no action in this step"
        labels = []
        whole = 0.0
        for step in trajectory.agent_steps:
            rise = rises.get(step.step_id)
            whole += rise or 0.0
            reason = missing if rise is None else _told(rise, whole)
            labels.append(
                StepLabel(
                    trajectory.trajectory_id,
                    step.step_id,
                    None if rise is not None and rise > 0 else Kind.NONE,
                    self.source,
                    score=rise,
                    reason=f"{reason}; {note}" if note else reason,
                )
            )
        return labels

    def cost(self, trajectories: Iterable[Trajectory]) -> Cost:
        """The actions that would be played, at most; none where rewards are read."""
        return Cost(env_steps=sum(map(self._most_steps, trajectories)))

    def _most_steps(self, trajectory: Trajectory) -> int:
        if self._is_read(trajectory) or trajectory.environment is None:
            return 0
        try:
            return len(moves_of(trajectory))
        except CannotLabel:
            return 0

    def _is_read(self, trajectory: Trajectory) -> bool:
        """Whether the file's rewards are taken."""
        if self.options.source != "auto" or self._environments is None:
            return self.options.source != "replay"
        return any(step.reward is not None for step in trajectory.agent_steps)

    def _replayed(self, trajectory: Trajectory) -> tuple[dict[int, float], str | None]:
        assert self._environments is not None
        moves = moves_of(trajectory)
        replayed = play_whole(self._environments.of(trajectory), trajectory, moves)
        note = check_outcome(trajectory, replayed, self.options.tolerate_divergence)
        return {key: round(value, DECIMALS) for key, value in replayed.rewards.items()}, note


def recorded_rises(
    trajectory: Trajectory, rewards: Literal["earned", "so_far"] = "earned"
) -> dict[int, float]:
    """r_{t+1} - r_t of every agent step that records a reward; see :class:`ProgressOptions`."""
    rises = {}
    before = 0.0
    for step in trajectory.agent_steps:
        reward = step.reward
        if reward is not None:
            # As it stands: rounding could make a small rise none.
            rises[step.step_id] = reward - before if rewards == "so_far" else reward
            before = reward
    return rises


def _told(rise: float, whole: float) -> str:
    """
    >>> _told(0.25, 0.75), _told(-5.0, 10.0), _told(0.0, 0.0)
    ('the reward rises by 0.25 to 0.75', 'the reward falls by 5 to 10', 'the reward stays at 0')
    """
    total = f"{round(whole, DECIMALS):.6g}"
    if rise == 0:
        return f"the reward stays at {total}"
    return f"the reward {'rises' if rise > 0 else 'falls'} by {abs(rise):.4g} to {total}"


def _no_rewards(can_replay: bool) -> str:
    said = "no step of the trajectory records a reward, so it is not known where it rises"
    if can_replay:
        return f"{said}: play it again with --set source=replay"
    return f"{said}: import a file that keeps the rewards of steps"


def _version(options: ProgressOptions) -> str:
    """
    >>> _version(ProgressOptions()), _version(ProgressOptions(source="auto"))
    ('1', '1+source=auto')
    """
    told = []
    if options.source != "file":
        told.append(f"source={options.source}")
    if options.rewards != "earned":
        told.append(f"rewards={options.rewards}")
    if options.tolerate_divergence:
        told.append("tolerate_divergence=true")
    return "1" + ("+" + ",".join(told) if told else "")
