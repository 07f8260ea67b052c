"""The direct expert: each intention of the bot as one action, with a thought in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atlas_tune.environments.babyai.bot import BotLost, Intent, Planner
from atlas_tune.environments.babyai.mission import is_target, is_to_open, remaining, target, words
from atlas_tune.environments.babyai.view import Cell
from atlas_tune.environments.babyai.ways import FORWARD, LEFT, RIGHT, after
from atlas_tune.environments.base import ExpertFailed, Turn

if TYPE_CHECKING:
    from atlas_tune.environments.babyai.env import BabyAI

MAX_TURNS = 100
WORTH_WALKING = 3
"""Cells by which going to some thing must bring us nearer, to take the place of single steps."""

NAMED_AT_MOST = 8
"""How many things in view a thought names."""

_SINGLE = {LEFT: "turn left", RIGHT: "turn right", FORWARD: "move forward"}
_AFOOT = {LEFT: "I turn left.", RIGHT: "I turn right.", FORWARD: "I walk on."}


class DirectExpert:
    """Takes the one action that does most of what the bot wants next."""

    def __init__(self, env: BabyAI) -> None:
        self._env = env
        self._planner = Planner(env.world)
        self._turns = 0

    def moved(self, move: int) -> None:
        """Follow a move that was made, whoever chose it."""
        self._planner.moved(move)

    def turn(self) -> Turn:
        """The next turn.

        Raises:
            ExpertFailed: the bot is at a loss, or does not come to an end.
        """
        self._turns += 1
        if self._turns > MAX_TURNS:
            raise self._failure(f"there was no success in {MAX_TURNS} turns")
        try:
            turn = self._turn(self._planner.intent())
        except BotLost as lost:
            raise self._failure(str(lost)) from lost
        if turn.action not in self._env.menu.actions:
            raise self._failure(f"'{turn.action}' cannot be done here")
        return turn

    def exploring(self) -> bool:
        """Whether the next turn looks for something that was not seen yet."""
        try:
            return self._planner.intent().verb == "explore"
        except BotLost:
            return True

    def strangers(self) -> list[tuple[str, str]]:
        """Things in view that the mission does not name and that can be walked to.

        Each with its name in the observation and the action that goes to it.
        """
        left = remaining(self._env.world.instrs)
        return [
            (self._name(cell), action)
            for (verb, cell), action in self._env.menu.aims.items()
            if verb == "go to" and not is_target(self._thing(cell), left)
            if self._aim("go to", cell)
        ]

    def in_view(self) -> str:
        """What is in view, in words, nearest first."""
        names = list(dict.fromkeys(thing.name for thing in self._env.view.objects))
        more = ", …" if len(names) > NAMED_AT_MOST else ""
        return f"In view: {', '.join(names[:NAMED_AT_MOST]) or 'nothing'}{more}."

    def target(self) -> str:
        """What is needed next, in words."""
        left = remaining(self._env.world.instrs)
        return words(target(left[0], self._env.world.carrying))

    def _turn(self, intent: Intent) -> Turn:
        if intent.verb == "done":
            return Turn("I am already there. I turn away, to come back to it.", "turn left")
        if intent.verb == "drop":
            return Turn("I put down what I carry.", "drop")
        if intent.cell is not None and (
            turn := self._upon(intent.verb, intent.cell) or self._on_the_way(intent)
        ):
            return turn
        if intent.move not in _SINGLE:
            raise BotLost(f"the bot wants move {intent.move}, which has no action here")
        return Turn(f"{self._reason(intent)} {_AFOOT[intent.move]}", _SINGLE[intent.move])

    def _upon(self, verb: str, cell: Cell) -> Turn | None:
        """The action that fulfils the intention in one turn, if there is one."""
        thing = self._thing(cell)
        if thing is None:
            return None
        name = self._name(cell)
        left = remaining(self._env.world.instrs)
        wanted = is_target(thing, left)
        if verb == "open":
            if is_to_open(thing, left):
                if action := self._aim("toggle", cell):
                    return Turn(f"The {name} is right in front of me. I open it.", action)
                verb, thought = "go to", f"I see the {name}. I go to it."
            else:
                verb = "toggle and go through"
                reason = (
                    "I have the key." if thing.is_locked else f"I do not see {self.target()} here."
                )
                thought = f"{reason} I go through the {name}."
        elif verb == "pickup":
            if wanted:
                thought = f"I see the {name}. I pick it up."
            elif thing.type == "key" and self._opens_a_door(thing):
                thought = f"I need the {name} for the locked door."
            else:
                thought = f"The {name} is in the way. I take it."
        elif verb == "go to":
            thought = f"I see the {name}. I go to it."
        else:
            return None
        action = self._aim(verb, cell)
        return Turn(thought, action) if action else None

    def _on_the_way(self, intent: Intent) -> Turn | None:
        """An action that saves single steps: through an open door, or to a thing further on."""
        assert intent.cell is not None
        for cell in intent.way:
            if action := self._aim("go through", cell):
                return Turn(f"{self._reason(intent)} I go through the {self._name(cell)}.", action)
        here = self._env.view.position
        now = self._planner.distance(here, intent.cell)
        best: tuple[int, str, Cell] | None = None
        for (verb, cell), action in self._env.menu.aims.items():
            if now is None or verb != "go to" or not self._aim(verb, cell):
                continue
            then = self._planner.distance(self._end(action), intent.cell)
            if then is not None and now - then >= max(WORTH_WALKING, best[0] + 1 if best else 0):
                best = (now - then, action, cell)
        if best is None:
            return None
        _, action, cell = best
        return Turn(f"{self._reason(intent)} I walk up to the {self._name(cell)}.", action)

    def _reason(self, intent: Intent) -> str:
        if intent.verb == "explore" or intent.cell is None:
            return f"I do not see {self.target()} yet."
        thing = self._thing(intent.cell)
        return (
            "I look for a free place."
            if thing is None
            else f"I head for the {thing.color} {thing.type}."
        )

    def _aim(self, verb: str, cell: Cell) -> str | None:
        """The available action of a verb upon a cell, if it moves at all and will get there."""
        action = self._env.menu.aims.get((verb, cell))
        if action is None:
            return None
        moves = self._env.menu.actions[action]
        return action if moves and self._planner.can_walk(self._pose(), moves) else None

    def _end(self, action: str) -> Cell:
        pose = self._pose()
        for move in self._env.menu.actions[action]:
            pose = after(pose, move)
        return pose[0]

    def _opens_a_door(self, key: Any) -> bool:
        cells = filter(None, self._env.world.grid.grid)
        return any(c.type == "door" and c.is_locked and c.color == key.color for c in cells)

    def _pose(self) -> tuple[Cell, int]:
        return self._env.view.position, self._env.view.direction

    def _thing(self, cell: Cell) -> Any:
        return self._env.world.grid.get(*cell)

    def _name(self, cell: Cell) -> str:
        thing = self._thing(cell)
        return f"{thing.color} {thing.type}"

    def _failure(self, why: str) -> ExpertFailed:
        return ExpertFailed(f"The expert gives up {self._env.task_id}: {why}. Leave this task out.")
