"""The recipe-tree solver: the fewest actions from what is held to the goal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from atlas_tune.environments.textcraft.recipes import Recipe, amounts
from atlas_tune.environments.textcraft.rules import Rules


@dataclass(frozen=True, slots=True)
class Get:
    """Get ``count`` of a raw item, which is needed to make ``purpose``."""

    item: str
    count: int
    purpose: str

    @property
    def action(self) -> str:
        """The action in the environment's words."""
        return f"get {self.count} {self.item}"


@dataclass(frozen=True, slots=True)
class Craft:
    """Use a recipe once, on ``inputs``, because ``wanted`` of its item go into ``purpose``."""

    recipe: Recipe
    inputs: tuple[tuple[str, int], ...]
    wanted: int
    purpose: str

    @property
    def item(self) -> str:
        """The item that is made."""
        return self.recipe.item

    @property
    def action(self) -> str:
        """The action in the environment's words, with kinds named where the need is generic."""
        return f"craft {self.recipe.count} {self.item} using {amounts(self.inputs)}"


Deed = Get | Craft
Choices = Mapping[str, Recipe | str | None]


def solve(rules: Rules, goal: str, have: Mapping[str, int] | None = None) -> list[Deed] | None:
    """The shortest plan that crafts ``goal``, or None where the shown commands do not lead to it.

    Shortest among the plans that make each item by one recipe and satisfy each generic need by
    one kind throughout. Of equally short plans the one that uses fewer recipes wins, and then
    the first in the order of the shown commands.
    """
    best: list[Deed] | None = None
    open_choices: list[Choices] = [{}]
    while open_choices:
        draft = _Draft(rules, have or {}, open_choices.pop())
        if draft.make(goal, 1, goal, frozenset()):
            plan = draft.merged()
            if best is None or _cost(plan) < _cost(best):
                best = plan
        elif draft.undecided is not None:
            name, options = draft.undecided
            # Reversed, because the last one pushed is the first one tried.
            open_choices += [{**draft.choices, name: option} for option in reversed(options)]
    return best


def _cost(plan: list[Deed]) -> tuple[int, int]:
    return len(plan), len({deed.recipe for deed in plan if isinstance(deed, Craft)})


class _Draft:
    """One attempt at a plan under given choices; it stops at the first choice still open."""

    def __init__(self, rules: Rules, have: Mapping[str, int], choices: Choices) -> None:
        self.rules = rules
        self.choices = choices
        self.stock = dict(have)
        self.deeds: list[Deed] = []
        self.undecided: tuple[str, list[Recipe | str]] | None = None

    def make(self, item: str, wanted: int, purpose: str, above: frozenset[str]) -> bool:
        """Reserve ``wanted`` of an item, planning what is missing; False if that fails.

        ``above`` holds the items being made further up: needing one of them is a circle.
        """
        at_hand = min(self.stock.get(item, 0), wanted)
        self.stock[item] = self.stock.get(item, 0) - at_hand
        missing = wanted - at_hand
        if not missing:
            return True
        if item in above:
            return False
        recipe = self._choose(item, list(self.rules.makes.get(item, ())))
        if recipe is None:
            if self.undecided is None and item in self.rules.obtainable:
                self.deeds.append(Get(item, missing, purpose))
                return True
            return False
        assert isinstance(recipe, Recipe)
        times = -(-missing // recipe.count)
        inputs = []
        for need, count in recipe.needs:
            kind = self._kind(need)
            if kind is None or not self.make(kind, count * times, item, above | {item}):
                return False
            inputs.append((kind, count))
        self.deeds += [Craft(recipe, tuple(inputs), wanted, purpose)] * times
        self.stock[item] += recipe.count * times - missing
        return True

    def merged(self) -> list[Deed]:
        """The plan with all gets of an item joined in the first of them."""
        totals: dict[str, int] = {}
        for deed in self.deeds:
            if isinstance(deed, Get):
                totals[deed.item] = totals.get(deed.item, 0) + deed.count
        plan: list[Deed] = []
        for deed in self.deeds:
            if not isinstance(deed, Get):
                plan.append(deed)
            elif deed.item in totals:
                plan.append(replace(deed, count=totals.pop(deed.item)))
        return plan

    def _kind(self, need: str) -> str | None:
        kinds = [
            kind
            for kind in self.rules.kinds_of(need)
            if kind in self.rules.makes or kind in self.rules.obtainable or self.stock.get(kind, 0)
        ]
        if need in self.rules.obtainable:
            kinds = [need]
        chosen = self._choose(f"any {need}", kinds) if kinds != [need] else need
        return chosen if isinstance(chosen, str) else None

    def _choose(self, name: str, options: list[Recipe] | list[str]) -> Recipe | str | None:
        """The option decided on, the only one, or None: no option, or the choice is open."""
        if name in self.choices:
            return self.choices[name]
        if len(options) > 1:
            self.undecided = (name, list(options))
            return None
        return options[0] if options else None
