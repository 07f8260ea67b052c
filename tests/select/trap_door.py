"""A corridor with a trap door: one step decides, and its worth can be worked out by hand.

And policies that walk it: real ones, in a few lines, whose randomness is that of
``agents/streams.py``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from atlas_tune.agents.react import format_turn
from atlas_tune.agents.rollout import run_expert
from atlas_tune.agents.streams import reply_seed, stream_of
from atlas_tune.environments.base import TextEnv, Turn
from atlas_tune.trajectory import Outcome, Trajectory


class TrapDoor(TextEnv):
    """Walk ``forward``, turn ``left`` at the fork, walk ``forward`` to the goal.

    Task ``trap/n`` has its fork at the second of n cells; whoever does not turn left there
    falls, and the run is over. The task ``safe/n`` has no trap. Every cell but the last pays
    0.125, the last one 1.
    """

    name: ClassVar[str] = "trap"
    instruction: ClassVar[str] = "Reach the goal."
    max_steps: ClassVar[int] = 6
    metric: ClassVar[str] = "success"

    def tasks(self, split: str, /, **options: Any) -> Sequence[str]:
        return ("trap/3", "safe/3")

    def reset(self, *, seed=None, options=None):
        kind, _, cells = options["task_id"].partition("/")
        self.trap, self.cells, self.at = kind == "trap", int(cells), 0
        return self._view(), {"success": False, "valid": True}

    def step(self, action):
        if action == "look":
            return self._view(), 0.0, False, False, {"success": False, "valid": True}
        if action not in ("forward", "left"):
            return f"You cannot {action}.", 0.0, False, False, {"success": False, "valid": False}
        if self.trap and self.at == 1 and action != "left":
            return "You fall.", 0.0, True, False, {"success": False, "valid": True}
        self.at += 1
        won = self.at == self.cells
        info = {"success": won, "valid": True}
        return self._view(), 1.0 if won else 0.125, won, False, info

    def _view(self) -> str:
        return "A fork." if self.at == 1 else f"Cell {self.at}."

    def expert(self, seed=0, habits=None):
        return Guide()


class Guide:
    """Looks around in the last cell but one, and knows the way."""

    def __init__(self) -> None:
        self.looked = False

    def act(self, observation: str) -> Turn:
        if observation == "Cell 2." and not self.looked:
            self.looked = True
            return Turn("I look.", "look")
        return Turn("I go on.", "left" if observation == "A fork." else "forward")


def guided(task: str = "trap/3", **changes: Any) -> Trajectory:
    """The guide's run: forward, left, look, forward. Its steps have the ids 4 to 7."""
    env = TrapDoor()
    run = run_expert(env, task, env.expert, 20).trajectory({"name": "guide"})
    fields = {"environment": "trap", "task_id": task, "outcome": Outcome(success=True), **changes}
    return Trajectory.create(run.steps, **fields)


class Walker:
    """A policy that goes forward, and left at the fork where its random number is low.

    Args:
        seed: of its random numbers.
        left: the probability to turn left at the fork.
    """

    def __init__(self, seed: int, left: float, asked: list[str]) -> None:
        self.seed, self.left, self.asked = seed, left, asked

    def replies(self, conversations: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, str]:
        self.asked += conversations
        return {key: self._reply(key, said) for key, said in conversations.items()}

    def _reply(self, key: str, said: Sequence[dict[str, Any]]) -> str:
        knows = draw(self.seed, key, said) < self.left
        at_fork = said[-1]["content"] == "A fork."
        return format_turn("I go on.", "left" if at_fork and knows else "forward")


class Walkers:
    """Makes walkers, and notes under which keys they were asked."""

    def __init__(self, left: float, make: Callable[..., Any] = Walker) -> None:
        self.left, self.make = left, make
        self.identity = f"walker@{left}"
        self.asked: list[str] = []

    def __call__(self, seed: int, temperature: float) -> Any:
        # A greedy walker does the likelier thing.
        left = self.left if temperature else float(self.left > 0.5)
        return self.make(seed, left, self.asked)

    @property
    def streams(self) -> set[str]:
        """The streams that were drawn from."""
        return {stream_of(key) for key in self.asked}

    @property
    def rollouts(self) -> int:
        """How many episodes were played."""
        return len(set(self.asked))


def draw(seed: int, key: str, said: Sequence[dict[str, Any]]) -> float:
    """A walker's random number for its next turn."""
    return random.Random(reply_seed(seed, key, said)).random()
