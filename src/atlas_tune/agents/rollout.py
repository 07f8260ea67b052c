"""Rollouts: a policy acting in an environment, task by task, to trajectories."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from atlas_tune.agents.policy import Policy
from atlas_tune.agents.react import format_turn
from atlas_tune.agents.style import REACT, Style, said
from atlas_tune.trajectory import Outcome, Step, Trajectory
from atlas_tune.trajectory.messages import Message, from_messages

if TYPE_CHECKING:
    from atlas_tune.agents.opening import Opening
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
    """(text of the agent, observation that answered it, reward of the step)"""
    success: bool = False
    ended: bool = False
    invalid: int = 0
    """How many replies held no action that the environment could take."""
    history: tuple[Message, ...] = ()
    """What the agent saw before its first turn, where that is not the environment's own opening:
    see :mod:`.opening` and :mod:`.resume`."""
    earned: float = 0.0
    """The reward of the moves that were played before the first turn."""
    style: Style = REACT
    """How the agent acts."""
    error: str | None = None
    """Why the run broke off, if it did: the environment failed, or the model's context was full.
    Such an episode has ended and is no success."""
    _said: list[Message] = field(default_factory=list)
    """The agent's messages, one a turn."""

    @classmethod
    def start(
        cls, env: TextEnv, task_id: str, opening: Opening | None = None, style: Style = REACT
    ) -> Episode:
        """Reset the environment to the task.

        ``opening`` is told instead of the environment's own instruction. What it states of the
        recorded tasks alone, the environment restates (:meth:`TextEnv.restate`).
        """
        observation, _ = env.reset(options={"task_id": task_id})
        history = () if opening is None else tuple(opening.conversation(observation, env.restate))
        return cls(env, task_id, observation, history=history, style=style)

    @property
    def reward(self) -> float:
        """The return so far: the sum of the rewards, those before the first turn included.

        An episode that broke off has a return of 0, whatever it had earned: it counts as failed.
        """
        if self.error is not None:
            return 0.0
        return self.earned + sum(reward for _, _, reward in self.turns)

    def opening(self) -> list[Message]:
        """The conversation before the agent's first turn."""
        return list(self.history) or [
            {"role": "user", "content": f"{self.env.instruction}\n\n{self.style.reply_format}"},
            {"role": "assistant", "content": PREFILL},
            {"role": "user", "content": self.observation},
        ]

    def messages(self) -> list[Message]:
        """The conversation so far, as the policy sees it."""
        messages = self.opening()
        for message, (_, answer, _) in zip(self._said, self.turns, strict=True):
            messages += [message, *self.style.answers(message, answer)]
        return messages

    def act(self, reply: str | Message) -> None:
        """Take the agent's reply: play its action, or tell it what is wrong with the reply."""
        message = said(reply) if isinstance(reply, str) else reply
        turn = self.style.read(message)
        if turn.action is None:
            self.invalid += 1
            self._took(message, self.style.told(str(turn.problem)), 0.0)
            return
        observation, reward, terminated, truncated, info = self.env.step(turn.action)
        self.invalid += not info["valid"]
        self._took(message, observation, float(reward))
        self.success = bool(info["success"])
        self.ended = terminated or truncated

    def is_in_loop(self, turns: int) -> bool:
        """Whether the last so many turns said one and the same and had one and the same answer."""
        return len(self.turns) >= turns and len(set(self.turns[-turns:])) == 1

    def break_off(self, error: str) -> None:
        """End the episode as failed."""
        self.error, self.ended, self.success = error, True, False

    def trajectory(self, agent: dict[str, Any]) -> Trajectory:
        """The run as a trajectory, with the reward of each step under its ``metrics``.

        What the agent said in the opening is copied context: no step of this run.

        Raises:
            InvalidTrajectory: the agent has not acted yet.
        """
        opening, messages = self.opening(), self.messages()
        copied = [True] * len(opening) + [False] * (len(messages) - len(opening))
        rewards = iter([reward for _, _, reward in self.turns])
        steps = [
            replace(step, metrics={"extra": {"reward": next(rewards)}}) if _is_own(step) else step
            for step in from_messages(messages, copied)
        ]
        tools = {"tool_definitions": list(self.style.tools)} if self.style.tools else {}
        return Trajectory.create(
            tuple(steps),
            environment=self.env.name,
            task_id=self.task_id,
            outcome=Outcome(reward=self.reward, success=self.success),
            agent={**agent, **tools},
        )

    def _took(self, message: Message, answer: str, reward: float) -> None:
        self._said.append(message)
        self.turns.append((str(message["content"] or ""), answer, reward))


def _is_own(step: Step) -> bool:
    return step.source == "agent" and not step.is_copied_context


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
    *,
    streams: Sequence[str] | None = None,
    style: Style = REACT,
    opening: Opening | None = None,
) -> list[Episode]:
    """Run one episode per task, all at once, until each has ended or reached the step limit.

    What goes wrong in one episode does not touch the others, see :mod:`.surviving`: the task is
    tried once more in a fresh environment, after the others have ended; then the episode stays
    broken off, with its ``error``.

    Args:
        make_env: makes one environment; each episode has its own, which is closed at the end.
        task_ids: the tasks, in order; the episodes come back in the same order.
        policy: answers all running episodes together.
        max_steps: the step limit, in agent turns; replies without an action count.
        on_turn: called after each turn with all episodes, for progress.
        streams: the names of the episodes' random numbers (:mod:`.streams`), one a task; by default
            the task's id, so that a task draws the same numbers in any batch.
        style: how the agent acts; :data:`.style.TOOLS` needs a policy with ``turns``.
        opening: told instead of the environment's own instruction.

    Raises:
        AtlasError: no environment can be made, nothing can be started in any, or the policy
            cannot answer.
    """
    from atlas_tune.agents.surviving import Surviving

    names = task_ids if streams is None else streams
    run = Surviving(make_env, policy, max_steps, style, opening, tasks=len(task_ids))
    return run.play([(str(n), t) for n, t in zip(names, task_ids, strict=True)], on_turn)


def play_on(
    episodes: Mapping[str, Episode],
    policy: Policy,
    turns: Mapping[str, int],
    on_turn: Callable[[list[Episode]], None] = lambda episodes: None,
) -> None:
    """Let a policy act in episodes, all at once, until each has ended or used up its turns.

    What an environment or the policy raises ends it all: :func:`run_policy` is the one that
    survives failures.

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
