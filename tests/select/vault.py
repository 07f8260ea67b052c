"""A tiny deterministic environment whose necessities can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from atlas_tune.agents.react import format_turn
from atlas_tune.environments.base import Expert, TextEnv
from atlas_tune.errors import UsageError
from atlas_tune.trajectory import Observation, Outcome, Step, Trajectory


class Vault(TextEnv):
    """Take a key, open the door, take the gold; with the lamp lit the gold is worth 1.0, else 0.6.

    Either key opens the door. ``jam`` makes the gold stick until ``unjam``. Task "timed" takes
    0.001 off the reward for every move before the last; in task "robbed" there is no red key.
    """

    name: ClassVar[str] = "vault"
    instruction: ClassVar[str] = "Get the gold."
    max_steps: ClassVar[int] = 20
    metric: ClassVar[str] = "reward"

    def tasks(self, split: str, **options: Any) -> Sequence[str]:
        return ("plain", "timed", "robbed")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self.task = (options or {})["task_id"]
        if self.task not in self.tasks("train"):
            raise UsageError(f"vault has no task '{self.task}'")
        self.has: set[str] = set()
        self.moves = 0
        return "You stand before a vault.", {"success": False, "valid": True}

    def step(self, action: str):
        possible = {
            "look": True,
            "take red key": self.task != "robbed",
            "take blue key": True,
            "light lamp": True,
            "open door": bool({"take red key", "take blue key"} & self.has),
            "jam": "jam" not in self.has,
            "unjam": "jam" in self.has,
            "take gold": "open door" in self.has and "jam" not in self.has,
        }
        if not possible.get(action, False):
            return f"You cannot {action}.", 0.0, False, False, {"success": False, "valid": False}
        self.moves += 1
        self.has.add(action)
        if action == "unjam":
            self.has -= {"jam", "unjam"}
        won = action == "take gold"
        reward = 0.0
        if won:
            reward = 1.0 if "light lamp" in self.has else 0.6
            reward -= 0.001 * (self.moves - 1) if self.task == "timed" else 0.0
        return f"You {action}.", reward, won, False, {"success": won, "valid": True}

    def expert(self, seed: int = 0) -> Expert:
        raise NotImplementedError


def record(
    *actions: str, task: str = "plain", as_task: str | None = None, success: bool = True
) -> Trajectory:
    """A run in ``task``, written down as one in ``as_task``. Agent steps have the ids 2, 3, …"""
    env = Vault()
    first, _ = env.reset(options={"task_id": task})
    steps = [Step(1, "user", f"{env.instruction}\n{first}")]
    for action in actions:
        observation = env.step(action)[0]
        steps.append(
            Step(
                len(steps) + 1,
                "agent",
                format_turn("I go on.", action),
                observation=Observation.of(f"Instruction:\n{observation}"),
            )
        )
    return Trajectory.create(
        tuple(steps),
        environment="vault",
        task_id=as_task or task,
        outcome=Outcome(success=success),
    )
