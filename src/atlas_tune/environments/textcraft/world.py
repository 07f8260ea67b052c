"""The running world of a task: an inventory, and the answer to each action.

The wording of every answer, the odd ones included, is that of AgentTraj-L, so that recorded runs
replay and a model tuned on them meets the same words here.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from atlas_tune.environments.textcraft.rules import Rules
from atlas_tune.environments.textcraft.task import Task

# Counts of more than nine digits are not understood: no task needs them, and a number of a
# thousand digits would stall the world.
_CRAFT = re.compile(r"craft (.*) using (.*)")
_GET = re.compile(r"get ([0-9]{1,9}) (.*)")
_AMOUNT = re.compile(r"([0-9]{1,9}) (.*)")
_FOREIGN = re.compile(r"[^A-Za-z0-9, ]")


class Answer(NamedTuple):
    """The world's answer: the observation, whether the action did anything, and the goal."""

    observation: str
    valid: bool
    success: bool = False


class World:
    """One task under way. An action that fails changes nothing."""

    def __init__(self, task: Task) -> None:
        self.rules = Rules(task)
        self.goal = task.goal
        self.inventory: dict[str, int] = {}

    def answer(self, action: str) -> Answer:
        """Carry out an action and answer it in words.

        Signs other than letters, digits, commas and spaces are dropped first, as AgentGym's
        client does: ``get 1 flint.`` is understood.
        """
        action = _FOREIGN.sub("", action)
        if match := _CRAFT.match(action):
            return self._craft(match[1], match[2])
        if match := _GET.match(action):
            return self._get(match[2], int(match[1]))
        if action.startswith("inventory"):
            return Answer(self._look(), valid=True)
        return Answer(f"Could not execute {action}", valid=False)

    def _look(self) -> str:
        if not self.inventory:
            return "Inventory: You are not carrying anything."
        held = " ".join(f"[{item}] ({count})" for item, count in self.inventory.items())
        return f"Inventory: {held}"

    def _get(self, item: str, count: int) -> Answer:
        if item not in self.rules.obtainable or item in self.rules.makes:
            return Answer(f"Could not find {item}", valid=False)
        self.inventory[item] = self.inventory.get(item, 0) + count
        return Answer(f"Got {count} {item}", valid=True, success=item == self.goal)

    def _craft(self, output: str, ingredients: str) -> Answer:
        match = _AMOUNT.match(output)
        count, item = (int(match[1]), match[2]) if match else (1, output)
        name = None if item in self.rules.generic else _identifier(item)
        inputs: list[tuple[str, int]] = []
        for part in ingredients.split(","):
            amount = _AMOUNT.match(part.strip())
            if amount is None:
                return Answer(f"Wrong item format: {part.strip()}", valid=False)
            inputs.append((amount[2], int(amount[1])))
        asked: Counter[str] = Counter()
        for ingredient, wanted in inputs:
            asked[ingredient] += wanted
        # An ingredient that is not held at all is missing even where none of it is asked for.
        if any(self.inventory.get(i, -1) < wanted for i, wanted in asked.items()):
            return Answer(f"Could not find enough items to craft {name}", valid=False)
        recipe = self.rules.match(item, inputs)
        if recipe is None:
            return Answer(f"Could not find a valid recipe for {_record(item, name, count)}", False)
        for ingredient, wanted in asked.items():
            self.inventory[ingredient] -= wanted
            if not self.inventory[ingredient]:
                del self.inventory[ingredient]
        self.inventory[item] = self.inventory.get(item, 0) + recipe.count
        return Answer(f"Crafted {recipe.count} {name}", valid=True, success=item == self.goal)


def _identifier(item: str) -> str:
    return "minecraft:" + item.replace(" ", "_")


def _record(item: str, name: str | None, count: int) -> str:
    """What the original prints of an item it cannot craft: the text of its internal record."""
    tag = None if name else _identifier(item)
    return f"ItemTagWithCount(item_tag=ItemTag(tag={tag!r}, item_id={name!r}), count={count})"
