"""The expert: it follows the shortest plan, with small human habits on the way.

It knows what an agent can know, the first observation and the answers, and besides them only
which items can be got. What each habit means here, and when it is drawn:

- ``look``: checking the inventory. Drawn at the start and before each planned craft.
- ``slip``: a mistaken action, and its repair. Drawn at the start (trying to get the goal itself)
  and before each planned action. A get slips into no number ("get flint"), into getting what must
  be crafted, or into too few: the craft then fails, and a look shows what is missing. A craft
  slips into a wrong count or a generic name ("4 planks").
- ``detour``: getting one of an item that the plan does not need. Drawn before each planned get.

A habit is indulged only while the whole episode still fits below the step limit.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from atlas_tune.environments.base import Turn
from atlas_tune.environments.habits import Habits
from atlas_tune.environments.textcraft.plan import Craft, Deed, Get, solve
from atlas_tune.environments.textcraft.recipes import amounts
from atlas_tune.environments.textcraft.rules import Rules
from atlas_tune.errors import UsageError

_GOT = re.compile(r"Got ([0-9]+) (.+)")
_HELD = re.compile(r"\[([^\]]+)\] \(([0-9]+)\)")
_START = -1
_COST_OF_TOO_FEW = 3  # the craft that fails, the look, and the second get
_T = TypeVar("_T")


class _Whim(NamedTuple):
    """A turn that the plan does not hold, what the next turn says of it, and its price."""

    turn: Turn
    lesson: str = ""
    aside: bool = False
    """The turn steps outside the plan; else it is the planned action, done wrong."""
    cost: int = 1
    too_few: int = 0
    """How many more the expert fancies it got than it asked for; 0 where the action fails."""


class CraftExpert:
    """An expert for one task; ``steps`` is the limit that its habits respect."""

    def __init__(
        self, rules: Rules, goal: str, *, habits: Habits, draw: random.Random, steps: int
    ) -> None:
        plan = solve(rules, goal)
        if plan is None:
            raise UsageError(
                f"The commands shown do not lead to '{goal}', so no expert can craft it: the task "
                "lacks a command."
            )
        self._rules, self._goal, self._habits, self._draw = rules, goal, habits, draw
        self._plan = plan
        self._spare = steps - len(plan)
        self._fancied: dict[str, int] = {}  # what it believes it holds
        self._doing: Deed | None = None  # the planned action under way
        self._too_few = 0
        self._done = 0
        self._puzzled = False
        self._outlined = False
        self._lesson = ""
        self._occasions: set[tuple[str, int]] = set()
        named = {need for rs in rules.makes.values() for r in rs for need, _ in r.needs}
        useful = {deed.item for deed in plan}
        self._useless = sorted((named & rules.obtainable) - useful)

    def act(self, observation: str) -> Turn:
        """The next turn, given the answer to the last one."""
        self._learn(observation)
        lesson, self._lesson = self._lesson, ""
        self._doing = None
        if self._puzzled or not self._plan:
            self._puzzled = False
            return Turn("Something is missing. I check what I have.", "inventory")
        deed = self._plan[0]
        whim = self._whim(deed)
        if whim is None:
            self._doing = deed
            turn = Turn(self._reason(deed), deed.action)
        else:
            turn, self._lesson = whim.turn, whim.lesson
            self._spare -= whim.cost
            self._too_few = whim.too_few
            self._doing = deed if whim.too_few else None
        said = [lesson, turn.thought]
        if not self._outlined and not (whim and whim.aside):
            self._outlined = True
            said.insert(1, self._outline())
        return Turn(" ".join(words for words in said if words), turn.action)

    def _learn(self, observation: str) -> None:
        """Bring the plan and the fancied inventory up to what an answer tells."""
        deed, held = self._doing, self._fancied
        if got := _GOT.fullmatch(observation):
            held[got[2]] = held.get(got[2], 0) + int(got[1]) + self._too_few
            self._too_few = 0
        elif observation.startswith("Crafted ") and isinstance(deed, Craft):
            for item, count in deed.inputs:
                held[item] = held.get(item, 0) - count
            held[deed.item] = held.get(deed.item, 0) + deed.recipe.count
        elif observation.startswith("Inventory: "):
            self._correct({item: int(count) for item, count in _HELD.findall(observation)})
            return
        else:
            self._puzzled = deed is not None
            return
        if deed is not None:
            self._plan = self._plan[1:]
            self._done += 1

    def _correct(self, held: dict[str, int]) -> None:
        """Plan anew when the inventory is not what the expert fancied."""
        short = [item for item, count in self._fancied.items() if held.get(item, 0) < count]
        self._fancied = held
        if short:
            left = held.get(short[0], 0)
            self._lesson = f"I have {f'only {left}' if left else 'no'} {short[0]}."
            self._plan = solve(self._rules, self._goal, held) or self._plan

    def _whim(self, deed: Deed) -> _Whim | None:
        """The habit that comes before a planned action, if one does."""
        if self._feels("look", _START):
            return _Whim(Turn("First I check what I have.", "inventory"), aside=True)
        if self._feels("slip", _START):
            return self._grasp(self._goal)
        if isinstance(deed, Get) and self._useless and self._feels("detour", self._done):
            item = self._pick(self._useless)
            return _Whim(Turn(f"{item} may be useful too.", f"get 1 {item}"), aside=True)
        if isinstance(deed, Craft) and self._feels("look", self._done):
            return _Whim(Turn("I check that I have everything.", "inventory"), aside=True)
        if self._feels("slip", self._done):
            slips = self._get_slips(deed) if isinstance(deed, Get) else self._craft_slips(deed)
            return self._pick(slips) if slips else None
        return None

    def _feels(self, habit: str, occasion: int) -> bool:
        """Draw a habit, once for each occasion, while there are steps to spare."""
        if self._spare < 1 or (habit, occasion) in self._occasions:
            return False
        self._occasions.add((habit, occasion))
        probability: float = getattr(self._habits, habit)
        return self._draw.random() < probability

    def _pick(self, options: Sequence[_T]) -> _T:
        # random.random() gives the same numbers in every Python version; choice() need not.
        return options[int(self._draw.random() * len(options))]

    def _grasp(self, item: str) -> _Whim:
        """Trying to get what must be crafted."""
        turn = Turn(f"Maybe I can get {item} directly.", f"get 1 {item}")
        return _Whim(turn, f"{item} cannot be found. I must craft it.", aside=True)

    def _get_slips(self, deed: Get) -> list[_Whim]:
        slips = [
            _Whim(Turn(self._reason(deed), f"get {deed.item}"), "I must say how many."),
        ]
        if deed.purpose != self._goal:
            slips.append(self._grasp(deed.purpose))
        if deed.count > 1 and self._spare >= _COST_OF_TOO_FEW:
            few = 1 + int(self._draw.random() * (deed.count - 1))
            turn = Turn(f"I need {few} {deed.item} for {deed.purpose}.", f"get {few} {deed.item}")
            slips.append(_Whim(turn, cost=_COST_OF_TOO_FEW, too_few=deed.count - few))
        return slips

    def _craft_slips(self, deed: Craft) -> list[_Whim]:
        head = f"craft {deed.recipe.count} {deed.item} using"
        slips = []
        at = int(self._draw.random() * len(deed.inputs))
        item, count = deed.inputs[at]
        wrong = list(deed.inputs)
        wrong[at] = (item, count - 1 if count > 1 else count + 1)
        if self._rules.match(deed.item, wrong) is None:
            turn = Turn(self._reason(deed), f"{head} {amounts(wrong)}")
            slips.append(_Whim(turn, f"The count was wrong: it takes {count} {item}."))
        for (need, _), (kind, _) in zip(deed.recipe.needs, deed.inputs, strict=True):
            if need != kind:
                turn = Turn(self._reason(deed), f"{head} {amounts(deed.recipe.needs)}")
                slips.append(_Whim(turn, f"I must name the kind of {need}: {kind}."))
                break
        return slips

    def _reason(self, deed: Deed) -> str:
        """Why a planned action comes next."""
        if isinstance(deed, Get):
            return f"I need {deed.count} {deed.item} for {deed.purpose}."
        if deed.item == self._goal:
            return f"I have {amounts(deed.inputs)}. I can craft {deed.item}."
        held = self._fancied.get(deed.item, 0)
        have = f" and have {held}" if held else ""
        return (
            f"I need {deed.wanted} {deed.item} for {deed.purpose}{have}. "
            f"I can craft it from {amounts(deed.inputs)}."
        )

    def _outline(self) -> str:
        """The whole plan in a sentence; the first planned turn says it."""
        gets = [(deed.item, deed.count) for deed in self._plan if isinstance(deed, Get)]
        crafts = dict.fromkeys(deed.item for deed in self._plan if isinstance(deed, Craft))
        return f"Plan: get {amounts(gets)}; craft {', '.join(crafts)}."
