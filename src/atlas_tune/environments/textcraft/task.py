"""A task: its crafting commands and its goal, which stand in its first observation."""

from __future__ import annotations

import re
from dataclasses import dataclass

from atlas_tune.environments.textcraft.recipes import Recipe

_OBSERVATION = re.compile(
    r"Crafting commands:\n(craft [^\n]+(?:\ncraft [^\n]+)*)\n\nGoal: craft (.+)\."
)


@dataclass(frozen=True)
class Task:
    """The commands shown, in the order shown, and the item to craft. Nothing else decides."""

    shown: tuple[Recipe, ...]
    goal: str

    @property
    def observation(self) -> str:
        """The first observation: the whole task in words, as AgentTraj-L has it."""
        commands = "\n".join(recipe.command for recipe in self.shown)
        return f"Crafting commands:\n{commands}\n\nGoal: craft {self.goal}."

    @classmethod
    def find(cls, text: str) -> Task | None:
        """The task whose first observation stands somewhere in a text; None if none does.

        The last one wins: a prompt may show solved examples before it.

        Raises:
            ValueError: one of its lines is not a crafting command.
        """
        found = list(_OBSERVATION.finditer(text))
        if not found:
            return None
        commands, goal = found[-1].groups()
        return cls(tuple(Recipe.parse(line) for line in commands.split("\n")), goal)
