"""The crafting recipes of the game: the facts behind every task, read from ``recipes.json``.

A recipe has one text form, the crafting command that the agent reads and types:
``craft 4 oak planks using 1 oak logs``. The table holds the 612 recipes of 544 items that were
in force where AgentTraj-L was recorded; which three recipes were left out to break cycles, and
which names are generic, is told in the file itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

_COMMAND = re.compile(r"craft ([0-9]{1,9}) (.+?) using (.+)")
_AMOUNT = re.compile(r"([0-9]{1,9}) (.+)")


@dataclass(frozen=True, slots=True)
class Recipe:
    """``needs`` makes ``count`` of ``item``; each need is a pair of name and count.

    A need may be generic ("planks"): any one kind of it, in the full count, satisfies it.
    """

    item: str
    count: int
    needs: tuple[tuple[str, int], ...]

    @property
    def command(self) -> str:
        """The crafting command that names this recipe."""
        return f"craft {self.count} {self.item} using {amounts(self.needs)}"

    @classmethod
    def parse(cls, command: str) -> Recipe:
        """The recipe that a crafting command names.

        Raises:
            ValueError: the text is not of the form ``craft N ITEM using N A, N B``.
        """
        match = _COMMAND.fullmatch(command)
        parts = [_AMOUNT.fullmatch(part) for part in match[3].split(", ")] if match else []
        needs = tuple((part[2], int(part[1])) for part in parts if part)
        if not match or len(needs) < len(parts):
            raise ValueError(f"'{command}' is not of the form 'craft N ITEM using N A, N B'")
        return cls(match[2], int(match[1]), needs)


def amounts(needs: Iterable[tuple[str, int]]) -> str:
    """Names with counts as a command lists them.

    >>> amounts([("stick", 1), ("iron ingot", 3)])
    '1 stick, 3 iron ingot'
    """
    return ", ".join(f"{count} {name}" for name, count in needs)


@dataclass(frozen=True)
class Table:
    """All recipes, the generic names, and what follows from them."""

    recipes: tuple[Recipe, ...]
    kinds: Mapping[str, tuple[str, ...]]
    """The items that satisfy a generic need: ``planks`` and ``wool``."""
    generic: frozenset[str]
    """Every name of a group of items; none of them is an item that can be held."""
    loose: frozenset[str]
    """Items that stand in no recipe here, and yet can be got."""
    by_item: Mapping[str, tuple[Recipe, ...]] = field(init=False, repr=False)
    raw: frozenset[str] = field(init=False, repr=False)
    """The items that no recipe makes: they can be got from the environment."""
    depths: Mapping[str, int] = field(init=False, repr=False)
    """The fewest crafts that lie, one under the other, below each item; 0 for a raw one."""

    def __post_init__(self) -> None:
        by_item: dict[str, tuple[Recipe, ...]] = {}
        for recipe in self.recipes:
            by_item[recipe.item] = (*by_item.get(recipe.item, ()), recipe)
        named = {name for recipe in self.recipes for name, _ in recipe.needs}
        object.__setattr__(self, "by_item", by_item)
        object.__setattr__(self, "raw", (named | self.loose) - set(by_item) - self.generic)
        depths: dict[str, int] = {}
        for item in by_item:
            self._sound(item, depths)
        object.__setattr__(self, "depths", depths)

    def depth_of(self, recipe: Recipe) -> int:
        """The depth that an item has when this recipe makes it."""
        return 1 + max(self.depths[name] for name, _ in recipe.needs)

    def _sound(self, name: str, depths: dict[str, int]) -> int:
        """The depth of an item or generic name, entered into ``depths`` with all below it."""
        if name not in depths:
            if name in self.kinds:
                depths[name] = min(self._sound(kind, depths) for kind in self.kinds[name])
            elif name in self.by_item:
                depths[name] = 1 + min(
                    max(self._sound(need, depths) for need, _ in recipe.needs)
                    for recipe in self.by_item[name]
                )
            else:
                depths[name] = 0
        return depths[name]


@cache
def table() -> Table:
    """The table of the game, read once."""
    record = _data("recipes.json")
    return Table(
        recipes=tuple(Recipe.parse(command) for command in record["commands"]),
        kinds={name: tuple(kinds) for name, kinds in record["kinds"].items()},
        generic=frozenset(record["generic"]),
        loose=frozenset(record["loose"]),
    )


@cache
def recorded_goals() -> frozenset[str]:
    """The 374 goals of the TextCraft runs in AgentTraj-L."""
    return frozenset(_data("recorded_goals.json")["goals"])


def _data(name: str) -> Any:
    return json.loads(files(__package__).joinpath(name).read_text(encoding="utf-8"))
