"""What the agent sees, in AgentGym's words.

The agent sees seven by seven cells: seven ahead, beginning with its own row, and three to each
side; walls and closed doors hide what lies behind them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Cell = tuple[int, int]

VIEW = 7
DIRECTIONS: tuple[Cell, ...] = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""East, south, west, north: each is the one before it turned right; y grows southwards."""

# The numbers by which minigrid's images encode kinds, colours and the states of doors.
_KINDS = {2: "wall", 4: "door", 5: "key", 6: "ball", 7: "box"}
_COLORS = ("red", "green", "blue", "purple", "yellow", "grey")
_DOOR_STATES = ("open", "closed", "locked")


@dataclass(frozen=True, slots=True)
class Thing:
    """Something in view: its name ("red ball", "blue closed door"), its cell, its way from us."""

    kind: str
    name: str
    cell: Cell
    ahead: int
    right: int

    @property
    def distance(self) -> int:
        return self.ahead + abs(self.right)


@dataclass(frozen=True, slots=True)
class View:
    """What is in view, nearest first, and what the agent holds ("red ball")."""

    position: Cell
    direction: int
    things: tuple[Thing, ...]
    carrying: str | None

    @property
    def objects(self) -> list[Thing]:
        """All that is seen but walls."""
        return [thing for thing in self.things if thing.kind != "wall"]

    @property
    def barrier(self) -> Thing | None:
        """The nearest wall or box straight ahead."""
        return next((t for t in self.things if t.kind in ("wall", "box") and t.right == 0), None)


def look(world: Any, image: Any) -> View:
    """The view of a minigrid world, whose last observation holds ``image``."""
    x, y = (int(n) for n in world.agent_pos)
    facing = int(world.agent_dir)
    (ahead_x, ahead_y), (right_x, right_y) = DIRECTIONS[facing], DIRECTIONS[(facing + 1) % 4]
    codes = image.tolist()
    things = []
    for row in range(VIEW):
        for column in range(VIEW):
            number, color, state = codes[column][row]
            ahead, right = VIEW - 1 - row, column - VIEW // 2
            # The agent's own cell shows what it carries, which is told apart from the view.
            if number not in _KINDS or (ahead == 0 and right == 0):
                continue
            kind = _KINDS[number]
            words = [_COLORS[color], _DOOR_STATES[state] if kind == "door" else "", kind]
            cell = (x + ahead * ahead_x + right * right_x, y + ahead * ahead_y + right * right_y)
            things.append(Thing(kind, " ".join(filter(None, words)), cell, ahead, right))
    held = world.carrying
    return View(
        (x, y),
        facing,
        tuple(sorted(things, key=lambda thing: thing.distance)),
        f"{held.color} {held.type}" if held else None,
    )


def numbered(things: Sequence[Thing]) -> list[tuple[str, Thing]]:
    """Each thing with its name and number: "red ball 1", "red ball 2"."""
    count: Counter[str] = Counter()
    named = []
    for thing in things:
        count[thing.name] += 1
        named.append((f"{thing.name} {count[thing.name]}", thing))
    return named


def describe(view: View) -> str:
    """The observation, word for word and space for space as AgentGym writes it."""
    if not view.things:
        text = "You cannot see any objects within sight."
    else:
        text = "In front of you in this room, you can see several objects: "
        for name, thing in numbered(view.objects):
            text += f"There is a {name} {_where(thing)}.  "
    text += "The room has walls around you. "
    if view.barrier:
        text += f"You are facing a {view.barrier.kind} {view.barrier.ahead} steps away. "
    held = f"a {view.carrying}" if view.carrying else None
    return text + (f"You are carrying {held}." if held else "You are not carrying anything.")


def _where(thing: Thing) -> str:
    if thing.right == 0:
        return f"right in front of you {thing.ahead} steps away"
    side = "right" if thing.right > 0 else "left"
    return f"{thing.ahead} steps in front of you and {abs(thing.right)} steps to your {side}"
