"""What one task allows: which items can be got, which commands craft, what satisfies what."""

from __future__ import annotations

from collections.abc import Sequence

from atlas_tune.environments.textcraft.recipes import Recipe, table
from atlas_tune.environments.textcraft.task import Task


class Rules:
    """The rules that follow from a task's shown commands.

    Only shown commands craft. What can be got is decided by the game's table as long as every
    shown command stands in it: raw items can be got, anything that has a recipe cannot, shown or
    not. A task with a command from elsewhere is taken at its word: whatever its commands name and
    none of them makes can be got.
    """

    def __init__(self, task: Task) -> None:
        game = table()
        makes: dict[str, tuple[Recipe, ...]] = {}
        for recipe in task.shown:
            if recipe not in makes.get(recipe.item, ()):
                makes[recipe.item] = (*makes.get(recipe.item, ()), recipe)
        self.makes = makes
        self.generic = game.generic
        self._kinds = game.kinds
        self._groups = {kind: name for name, kinds in game.kinds.items() for kind in kinds}
        if all(recipe in game.by_item.get(recipe.item, ()) for recipe in task.shown):
            self.obtainable = game.raw
        else:
            named = {name for recipe in task.shown for name, _ in recipe.needs}
            self.obtainable = frozenset(
                name
                for name in named - set(makes)
                if not any(kind in makes for kind in self.kinds_of(name))
            )
            self.generic -= self.obtainable

    def kinds_of(self, need: str) -> tuple[str, ...]:
        """The items that satisfy a need: the kinds of a generic name, else the item itself."""
        return self._kinds.get(need, (need,))

    def satisfies(self, item: str, need: str) -> bool:
        """Whether an item can stand where a recipe asks for ``need``."""
        return item == need or self._groups.get(item) == need

    def match(self, item: str, inputs: Sequence[tuple[str, int]]) -> Recipe | None:
        """The shown recipe that makes ``item`` from exactly these inputs, in any order."""
        for recipe in self.makes.get(item, ()):
            left = list(inputs)
            for need, count in recipe.needs:
                # The first input of the right sort must have the right count; a later one is not
                # tried. That is the original's rule, and AgentTraj-L was recorded under it.
                found = next((i for i in left if self.satisfies(i[0], need)), None)
                if found is None or found[1] != count:
                    break
                left.remove(found)
            else:
                if not left:
                    return recipe
        return None
