"""Rollouts: a policy acting in an environment, task by task, to trajectories."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from atlas_tune.agents.policy import Policy
from atlas_tune.agents.react import REPLY_FORMAT, format_turn, parse_turn
from atlas_tune.trajectory import Observation, Outcome, Step, Trajectory
from atlas_tune.trajectory.messages import Message, from_messages

if TYPE_CHECKING:
    from atlas_tune.environments.base import Expert, TextEnv

PREFILL = "OK."
"""The agent's first turn in AgentGym's conversations: it follows the instruction, so that the
first observation is a user message of its own under any chat template. It is copied context.
AgentGym's is a sentence; ours is short, because a small model pays for every token."""


@dataclass
class Episode:
    """One run, turn by turn."""

    env: TextEnv
    task_id: str
    observation: str
    turns: list[tuple[str, str, float]] = field(default_factory=list)
    """(message of the agent, observation that answered it, reward of the step)"""
    success: bool = False
    ended: bool = False
    invalid: int = 0
    """How many replies held no action that the environment could take."""
    history: tuple[Message, ...] = ()
    """What the agent saw before its first turn, where the run does not start at the task's
    beginning: see :mod:`.resume`."""
    earned: float = 0.0
    """The reward of the moves that were played before the first turn."""

    @classmethod
    def start(cls, env: TextEnv, task_id: str) -> Episode:
        """Reset the environment to the task."""
        observation, _ = env.reset(options={"task_id": task_id})
        return cls(env, task_id, observation)

    @property
    def reward(self) -> float:
        """The return so far: the sum of the rewards, those before the first turn included."""
        return self.earned + sum(reward for _, _, reward in self.turns)

    def opening(self) -> list[Message]:
        """The conversation before the agent's first turn."""
        return list(self.history) or [
            {"role": "user", "content": f"{self.env.instruction}\n\n{REPLY_FORMAT}"},
            {"role": "assistant", "content": PREFILL},
            {"role": "user", "content": self.observation},
        ]

    def messages(self) -> list[Message]:
        """The conversation so far, as the policy sees it."""
        messages = self.opening()
        for reply, answer, _ in self.turns:
            messages += [
                {"role": "assistant", "content": reply},
                {"role": "user", "content": answer},
            ]
        return messages

    def act(self, reply: str) -> None:
        """Take the agent's reply: play its action, or tell it what is wrong with the reply."""
        turn = parse_turn(reply)
        if turn.action is None:
            self.invalid += 1
            self.turns.append((reply, f"Error: {turn.problem}.\n\n{REPLY_FORMAT}", 0.0))
            return
        observation, reward, terminated, truncated, info = self.env.step(turn.action)
        self.invalid += not info["valid"]
        self.turns.append((reply, observation, float(reward)))
        self.success = bool(info["success"])
        self.ended = terminated or truncated

    def trajectory(self, agent: dict[str, Any]) -> Trajectory:
        """The run as a trajectory, with the reward of each step under its ``metrics``.

        What the agent said in the opening is copied context: no step of this run.
        """
        opening = self.opening()
        steps = list(from_messages(opening, copied=[True] * len(opening)))
        for reply, answer, reward in self.turns:
            steps.append(
                Step(
                    step_id=len(steps) + 1,
                    source="agent",
                    message=reply,
                    observation=Observation.of(answer),
                    metrics={"extra": {"reward": reward}},
                )
            )
        return Trajectory.create(
            tuple(steps),
            environment=self.env.name,
            task_id=self.task_id,
            outcome=Outcome(reward=self.reward, success=self.success),
            agent=agent,
        )


def run_expert(env: TextEnv, task_id: str, expert: Callable[[], Expert], max_steps: int) -> Episode:
    """One run of an expert, which is made after the environment was reset."""
    episode = Episode.start(env, task_id)
    agent = expert()
    observation = episode.observation
    while not episode.ended and len(episode.turns) < max_steps:
        turn = agent.act(observation)
        episode.act(format_turn(turn.thought, turn.action))
        observation = episode.turns[-1][1]
    return episode


def run_policy(
    make_env: Callable[[], TextEnv],
    task_ids: Sequence[str],
    policy: Policy,
    max_steps: int,
    on_turn: Callable[[list[Episode]], None] = lambda episodes: None,
) -> list[Episode]:
    """Run one episode per task, all at once, until each has ended or reached the step limit.

    Args:
        make_env: makes one environment; each episode has its own.
        task_ids: the tasks, in order; the episodes come back in the same order.
        policy: answers all running episodes together.
        max_steps: the step limit, in agent turns; replies without an action count.
        on_turn: called after each turn with all episodes, for progress.
    """
    episodes = {str(i): Episode.start(make_env(), task) for i, task in enumerate(task_ids)}
    play_on(episodes, policy, dict.fromkeys(episodes, max_steps), on_turn)
    return list(episodes.values())


def play_on(
    episodes: Mapping[str, Episode],
    policy: Policy,
    turns: Mapping[str, int],
    on_turn: Callable[[list[Episode]], None] = lambda episodes: None,
) -> None:
    """Let a policy act in episodes, all at once, until each has ended or used up its turns.

    Args:
        episodes: by the key under which the policy knows each.
        policy: answers all running episodes together.
        turns: by key, the most turns that the policy takes; replies without an action count.
        on_turn: called after each turn with all episodes, for progress.
    """
    for turn in range(max(turns.values(), default=0)):
        running = {k: e for k, e in episodes.items() if not e.ended and turn < turns[k]}
        if not running:
            break
        replies = policy.replies({key: e.messages() for key, e in running.items()})
        for key, episode in running.items():
            episode.act(replies[key])
        on_turn(list(episodes.values()))


def in_batches(task_ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The tasks in consecutive groups of ``size``."""
    for start in range(0, len(task_ids), size):
        yield task_ids[start : start + size]
