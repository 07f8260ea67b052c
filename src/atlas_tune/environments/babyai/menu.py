"""The actions that can be taken now, each as the moves it stands for; and why others cannot.

Their order is the order in which "check available actions" lists them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from atlas_tune.environments.babyai.view import Cell, Thing, View
from atlas_tune.environments.babyai.ways import (
    DROP,
    FORWARD,
    LEFT,
    PICKUP,
    RIGHT,
    TOGGLE,
    Ways,
    find_ways,
)

CHECK = "check available actions"
NO_CHANGE = "No change in state."
NOT_RECOGNISED = "The action is not recognized. Please check valid actions."


@dataclass(frozen=True, slots=True)
class Menu:
    """What can be done in one view."""

    actions: dict[str, list[int]] = field(default_factory=dict)
    """Each available action and its moves."""
    refusals: dict[str, str] = field(default_factory=dict)
    """Actions that are understood and cannot be taken, each with the reason."""
    aims: dict[tuple[str, Cell], str] = field(default_factory=dict)
    """The available action of a verb upon the thing in a cell."""

    @property
    def listing(self) -> str:
        """The answer to "check available actions"."""
        return "You can take the following actions: " + ", ".join([*self.actions, CHECK])


def menu_of(view: View) -> Menu:
    """The menu of a view."""
    menu = Menu({"turn left": [LEFT], "turn right": [RIGHT]})
    ways = find_ways(view)
    _add_forward(menu, view)
    if view.carrying is None:
        portable = [thing for thing in view.objects if thing.kind != "door"]
        _add_numbered(menu, "pickup", portable, ways, [PICKUP])
    _add_drop(menu, view)
    _add_doors(menu, view, ways)
    _add_numbered(menu, "go to", view.objects, ways, [])
    return menu


def _add_forward(menu: Menu, view: View) -> None:
    if view.barrier and view.barrier.ahead == 1:
        menu.refusals["move forward"] = (
            "There is a barrier in front of you, you can't move forward."
        )
    else:
        menu.actions["move forward"] = [FORWARD]


def _add_numbered(menu: Menu, verb: str, things: list[Thing], ways: Ways, then: list[int]) -> None:
    """Number the things that can be reached, name by name.

    So an unreachable thing takes no number: "go to red ball 1" goes to the nearest red ball that
    can be reached, which the observation may have called "red ball 2".
    """
    reachable: Counter[str] = Counter()
    for thing in things:
        action = f"{verb} {thing.name} {reachable[thing.name] + 1}"
        if thing.cell in ways.before:
            reachable[thing.name] += 1
            menu.actions[action] = ways.before[thing.cell] + then
            menu.aims[verb, thing.cell] = action
        else:
            menu.refusals[action] = f"You cannot {action}, as there is no path leading to it."


def _add_drop(menu: Menu, view: View) -> None:
    if view.carrying is None:
        menu.refusals["drop"] = "You cannot drop the object, as you are not carrying anything."
    elif any(t.ahead == 1 and t.right == 0 and t.kind != "door" for t in view.things):
        menu.refusals["drop"] = (
            "You cannot drop the object, as there is already an object in front of you."
        )
    else:
        menu.actions["drop"] = [DROP]


def _add_doors(menu: Menu, view: View, ways: Ways) -> None:
    """Doors keep the numbers that the observation gave them, reachable or not."""
    counts: Counter[str] = Counter()
    for door in view.objects:
        if door.kind != "door":
            continue
        counts[door.name] += 1
        name = f"{door.name} {counts[door.name]}"
        color, state, _ = door.name.split()
        if state == "open":
            action = f"go through {name}"
            if door.cell in ways.onto:
                menu.actions[action] = ways.onto[door.cell]
                menu.aims["go through", door.cell] = action
            else:
                menu.refusals[action] = f"You cannot {action}, as there is no path leading to it."
            continue
        action = f"toggle and go through {name}"
        if state == "locked" and (reason := _wrong_key(view.carrying, color)):
            menu.refusals[action] = f"You cannot {action}, as {reason}."
            continue
        if door.cell in ways.before:
            moves = ways.before[door.cell]
            menu.actions[action] = [*moves, TOGGLE, FORWARD]
            menu.aims["toggle and go through", door.cell] = action
            if not moves:
                menu.actions["toggle"] = [TOGGLE]
                menu.aims["toggle", door.cell] = "toggle"
        else:
            # AgentGym prints its tally of doors where the number belongs; so do the recordings.
            menu.refusals[action] = (
                f"You cannot toggle and go through {door.name} {dict(counts)}, "
                "as there is no path leading to it."
            )
        if state == "closed":
            menu.refusals[f"go through {name}"] = (
                f"You cannot go through {name}, as it is closed. You should toggle it first."
            )


def _wrong_key(carrying: str | None, color: str) -> str | None:
    if carrying is None or not carrying.endswith(" key"):
        return "you are not carrying a key"
    if carrying != f"{color} key":
        return "the color of the key you are carrying does not match the color of door"
    return None
