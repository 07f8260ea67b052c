"""Episodes that start inside a recorded run: its first steps as recorded, then a policy's own.

The environment is reset to the run's task and the recorded actions of the first steps are played.
The policy sees the run's own conversation up to there (its instruction, its prefill, its thoughts
and the observations that were recorded), then its own turns and the live environment's answers.

Two choices of ours:

- **The return** of such an episode includes what the recorded steps earned: it is the return of a
  whole run. So two places of one run are comparable also where rewards come along the way.
- **The step limit** counts recorded steps: from a place after t steps a policy has as many turns
  as the limit leaves, and at least one, because a recorded run may be longer than the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atlas_tune.agents.policy import Policy
from atlas_tune.agents.react import parse_turn
from atlas_tune.agents.rollout import Episode, play_on
from atlas_tune.agents.streams import episode_key
from atlas_tune.errors import AtlasError
from atlas_tune.trajectory import Trajectory
from atlas_tune.trajectory.messages import Message, to_messages

if TYPE_CHECKING:
    from atlas_tune.environments.base import TextEnv


class CannotResume(AtlasError):
    """A run from whose inside no episode can start; the message says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place inside a recorded run: after its first ``steps`` agent steps (0 to T)."""

    trajectory: Trajectory
    steps: int

    def __post_init__(self) -> None:
        of = len(self.trajectory.agent_steps)
        if not 0 <= self.steps <= of:
            raise ValueError(f"a run of {of} steps has no place after {self.steps} of them")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One rollout that is wanted: from where, and with which random numbers."""

    place: Place
    stream: str
    """Attempts of one stream share their random numbers turn by turn: see :mod:`.streams`."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a rollout ended."""

    reward: float
    """The return of the whole run, recorded steps included."""
    success: bool
    turns: int
    """The policy's own turns."""


@dataclass(frozen=True, slots=True)
class Stand:
    """What the environment shows after some recorded steps were played."""

    observation: str
    """Its last words: the answer to the last action that was played."""
    reward: float
    """The return so far."""
    success: bool
    ended: bool
    """Whether the episode is over; later recorded actions change nothing."""


def conversation(place: Place) -> list[Message]:
    """What the agent saw and said up to a place, as recorded.

    Raises:
        CannotResume: the run acts through tool calls, or begins with an agent step.
    """
    recorded_actions(place.trajectory)
    rendered = to_messages(place.trajectory)
    starts = [at for at, step_id in enumerate(rendered.step_ids) if step_id is not None]
    end = starts[place.steps] if place.steps < len(starts) else len(rendered.messages)
    if starts[0] == 0:
        raise CannotResume(
            "the run begins with a step of the agent, so nothing was said to it before that an "
            "acting model could answer"
        )
    return list(rendered.messages[:end])


def recorded_actions(trajectory: Trajectory) -> list[str | None]:
    """The action of each agent step; None where none could be read, which changed nothing.

    Raises:
        CannotResume: a step acts through tool calls.
    """
    for step in trajectory.agent_steps:
        if step.tool_calls:
            raise CannotResume(
                f"step {step.step_id} acts through tool calls, and only actions written as text "
                "('Action: …') can be played and compared"
            )
    return [parse_turn(step.message).action for step in trajectory.agent_steps]


def play_recorded(env: TextEnv, trajectory: Trajectory, steps: int | None = None) -> list[Stand]:
    """Play the first ``steps`` recorded steps (all by default) from the start of the run's task.

    Returns:
        ``steps + 1`` stands; number t is the one after t steps.

    Raises:
        CannotResume: a step acts through tool calls.
        UsageError: the trajectory names no task of this environment.
    """
    actions = recorded_actions(trajectory)[:steps]
    observation, info = env.reset_to(trajectory)
    stand = Stand(observation, 0.0, bool(info.get("success", False)), ended=False)
    stands = [stand]
    for action in actions:
        if action is not None and not stand.ended:
            observation, gained, terminated, truncated, info = env.step(action)
            stand = Stand(
                observation,
                stand.reward + float(gained),
                bool(info["success"]),
                terminated or truncated,
            )
        stands.append(stand)
    return stands


def resume(env: TextEnv, place: Place) -> Episode:
    """The episode at a place: the environment as it stands there, and the conversation so far.

    Raises:
        CannotResume: see :func:`conversation`.
        UsageError: the trajectory names no task of this environment.
    """
    history = conversation(place)
    stand = play_recorded(env, place.trajectory, place.steps)[-1]
    if history[-1]["role"] == "assistant":
        # A recording may end with a step that nothing answers; an acting model needs an answer.
        history.append({"role": "user", "content": stand.observation})
    return Episode(
        env,
        place.trajectory.task_id or "",
        stand.observation,
        success=stand.success,
        ended=stand.ended,
        history=tuple(history),
        earned=stand.reward,
    )


class Rollouts:
    """Plays attempts in batches, in environments that are built once and used again."""

    def __init__(
        self,
        make_environment: Callable[[str], TextEnv],
        batch_size: int,
        max_steps: int | None = None,
    ) -> None:
        """
        Args:
            make_environment: builds an environment by name.
            batch_size: episodes that run at once.
            max_steps: the steps of a run, recorded ones included; by default each environment's.
        """
        self._make = make_environment
        self._batch_size = batch_size
        self._max_steps = max_steps
        self._environments: dict[str, list[TextEnv]] = {}

    def environment(self, trajectory: Trajectory, number: int = 0) -> TextEnv:
        """The environment of a run; those with another number are running beside it.

        Raises:
            CannotResume: the trajectory names no environment.
            UsageError: there is none of that name.
        """
        name = trajectory.environment
        if name is None:
            raise CannotResume(
                "the trajectory names no environment, so nothing can be played in it: "
                "give it one when importing"
            )
        built = self._environments.setdefault(name, [])
        while len(built) <= number:
            built.append(self._make(name))
        return built[number]

    def turns_left(self, place: Place) -> int:
        """How many turns a policy has from a place, at least one."""
        limit = self._max_steps or self.environment(place.trajectory).max_steps
        return max(1, limit - place.steps)

    def play(self, attempts: Sequence[Attempt], policy: Policy) -> list[Ending]:
        """Play attempts to their ends; the endings come in the order of the attempts.

        Attempts from like places are batched together, whatever their order.

        Raises:
            CannotResume: a run from whose inside no episode can start.
            UsageError: a trajectory names no environment or task that can be played.
        """
        endings: dict[int, Ending] = {}
        for batch in self._batches(attempts):
            episodes = {}
            turns = {}
            keys = {}
            for number, index in enumerate(batch):
                place, stream = attempts[index].place, attempts[index].stream
                run = place.trajectory
                # The key holds the place: an episode must not go on from another one's cache.
                key = episode_key(stream, f"{run.trajectory_id[:16]}.{place.steps}.{index}")
                episodes[key] = resume(self.environment(run, number), place)
                turns[key] = self.turns_left(place)
                keys[index] = key
            play_on(episodes, policy, turns)
            for index, key in keys.items():
                episode = episodes[key]
                endings[index] = Ending(episode.reward, episode.success, len(episode.turns))
        return [endings[index] for index in range(len(attempts))]

    def _batches(self, attempts: Sequence[Attempt]) -> Iterator[list[int]]:
        order = sorted(range(len(attempts)), key=lambda i: attempts[i].place.steps)
        for start in range(0, len(order), self._batch_size):
            yield order[start : start + self._batch_size]
