"""Which turns of a recorded TextCraft run are needed, told from its books alone.

The books hold what each turn brought in and used up, read from its recorded words: "Got 2 oak
logs", "Crafted 4 minecraft:oak_planks", and what follows "using" in the action. A last craft that
nothing answers (AgentTraj-L leaves out what ended a run) is taken at its word. A craft that was
refused for want of items and succeeds word for word in another turn is in the books too: without
that turn it might have succeeded itself. No recipe, no rule and no world of this package has part
in it, so it can prove a replay right, and be proved wrong by it.

**Needed** is exact in counts: a turn is needed if the books of all other turns hold no way to the
goal. A way is a choice of entries, in their order, in which every craft finds what it uses up among
what earlier entries left over. So a get is needed if what it got is used on the way to the goal and
nothing left over stands in for it, and a craft is needed if its product is. Of two turns that each
suffice neither is needed. A turn that brings more than is used is needed for what is used.

The search goes backwards with a demand, at first one piece of the goal. A get meets as much of it
as it can. A craft either meets as much of its product's demand, and what it uses up is demanded in
its place, or is left out. The demand must be met when the beginning is reached.

Whatever is needed is necessary in a replay of all other turns too. The reverse fails in one case: a
choice of entries may leave out a craft that wastes what another one needs, and a replay may not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_GOT = re.compile(r"\bGot ([0-9]+) ([^\n]+)")
_CRAFTED = re.compile(r"\bCrafted ([0-9]+) minecraft:(\S+)")
_POSSIBLE = re.compile(r"\bCrafted |\bCould not find enough items ")
_CRAFT = re.compile(r"craft (?:([0-9]+) )?(.+?) using ")
_AMOUNT = re.compile(r"([0-9]+) ([^,]+)")
_FOREIGN = re.compile(r"[^A-Za-z0-9, ]")
_GOAL = re.compile(r"Goal: craft ([^\n]+)\.")

Turn = tuple[str, str | None]
"""An action and its recorded observation; None where nothing answers it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one turn brought in and used up."""

    turn: int
    item: str
    count: int
    used: tuple[tuple[str, int], ...] = ()
    """Items with counts; of a get, none."""


def goal_of(told: str) -> str:
    """The goal that a run's words name last.

    Raises:
        ValueError: they name none.
    """
    found = _GOAL.findall(told)
    if not found:
        raise ValueError("no 'Goal: craft …' stands in the words of the run")
    return str(found[-1])


def entries(turns: Sequence[Turn]) -> list[Entry]:
    """The books of a run, in order; a turn that neither brought nor could have brought anything
    has no entry."""
    turns = [(_FOREIGN.sub("", action), observation) for action, observation in turns]
    made: dict[str, tuple[str, int]] = {}
    for action, observation in turns:
        if product := _product(action, observation):
            made[action] = product
    books = []
    for number, (action, observation) in enumerate(turns):
        if observation is not None and (got := _GOT.search(observation)):
            books.append(Entry(number, got[2].strip(), int(got[1])))
        elif action in made and (observation is None or _POSSIBLE.search(observation)):
            books.append(Entry(number, *made[action], _used(action)))
    return books


def _product(action: str, observation: str | None) -> tuple[str, int] | None:
    """What a craft made: item and count."""
    if observation is not None:
        crafted = _CRAFTED.search(observation)
        return (crafted[2].replace("_", " "), int(crafted[1])) if crafted else None
    claimed = _CRAFT.match(action)
    return (claimed[2], int(claimed[1] or 1)) if claimed else None


def _used(action: str) -> tuple[tuple[str, int], ...]:
    used: Counter[str] = Counter()
    for count, item in _AMOUNT.findall(action.partition(" using ")[2]):
        used[item.strip()] += int(count)
    return tuple(used.items())


def needed_turns(turns: Sequence[Turn], goal: str) -> frozenset[int]:
    """The places of the turns without which the others hold no way to the goal.

    Args:
        turns: of the agent, in order.
        goal: the item of which one is wanted.

    Raises:
        ValueError: all turns together hold no way to the goal, so nothing can be told.
    """
    books = entries(turns)
    if not holds_a_way(books, goal):
        raise ValueError(f"the books of the run hold no way to '{goal}'")
    return frozenset(
        entry.turn
        for place, entry in enumerate(books)
        if not holds_a_way(books[:place] + books[place + 1 :], goal)
    )


def holds_a_way(books: Sequence[Entry], goal: str) -> bool:
    """Whether some of the entries, in their order, bring one of the goal."""
    demands: set[frozenset[tuple[str, int]]] = {frozenset({(goal, 1)})}
    for entry in reversed(books):
        demands = {after for demand in demands for after in _before(entry, dict(demand))}
        if frozenset() in demands:
            return True
    return False


def _before(entry: Entry, demand: dict[str, int]) -> list[frozenset[tuple[str, int]]]:
    """The demands before an entry, one of which must have been met, for a demand after it."""
    unchanged = frozenset(demand.items())
    if entry.item not in demand:
        return [unchanged]
    left = Counter(demand)
    left[entry.item] -= entry.count
    met = +left
    met.update(dict(entry.used))
    used = frozenset(met.items())
    # What a get brings costs nothing, so to leave it out is never better.
    return [used, unchanged] if entry.used else [used]
