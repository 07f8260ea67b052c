"""The expert: a gold path, with small human habits on the way.

Each habit is drawn before every action of the path:

- ``look``: "look around", or "inventory".
- ``slip``: words that the games do not know ("take the coin" for "take coin"); the right ones
  follow.
- ``detour``: after a move, going back and returning; after reading, reading it again.

Simon takes nothing but what he says, so in simonsays there are no habits but slips. A habit is
indulged only while the whole still fits into the step limit.
"""

from __future__ import annotations

import random

from atlas_tune.environments.base import ExpertFailed, Turn
from atlas_tune.environments.habits import Habits

_VERBS = ("chop", "close", "cook", "dice", "eat", "examine", "open", "prepare", "put", "read",
          "slice", "smell", "take", "touch")  # fmt: skip
_SLIPS = {
    "move ": "go ",
    "open door to ": "open the door to the ",
    **{f"{verb} ": f"{verb} the " for verb in _VERBS},
}
_BACK = {"north": "south", "south": "north", "east": "west", "west": "east"}
_REASONS = (
    ("look around", "I look at what is here."),
    ("inventory", "I check what I carry."),
    ("task", "I ask what my task is."),
    ("move ", "I go on to the {}."),
    ("open door to ", "The door to the {} may be closed, so I open it."),
    ("close door to ", "I close the door to the {}."),
    ("open ", "There may be something in the {}, so I open it."),
    ("close ", "I have seen what is in the {}, so I close it."),
    ("take ", "I need the {}."),
    ("read ", "The {} may say what I need to know."),
    ("prepare ", "All is ready, so I prepare the {}."),
    ("eat ", "The {} is ready, so I eat it."),
    ("chop ", "The recipe wants the {} chopped."),
    ("slice ", "The recipe wants the {} sliced."),
    ("dice ", "The recipe wants the {} diced."),
)
_REASONS_OF_TWO = (
    ("put ", "I put the {} in the {}."),
    ("cook ", "The recipe wants the {} cooked, and the {} does that."),
)


def thought_of(action: str) -> str:
    """A plain sentence in front of an action.

    >>> thought_of("take coin"), thought_of("put coin in box")
    ('I need the coin.', 'I put the coin in the box.')
    """
    for start, words in _REASONS:
        if action.startswith(start):
            return words.format(action.removeprefix(start))
    for start, words in _REASONS_OF_TWO:
        what, into, where = action.removeprefix(start).rpartition(" in ")
        if action.startswith(start) and into:
            return words.format(what, where)
    return f"Next I {action}."


class GoldExpert:
    """Plays a gold path; ``steps`` is the limit that its habits respect."""

    def __init__(
        self,
        path: tuple[str, ...],
        *,
        obeys: bool,
        habits: Habits,
        draw: random.Random,
        steps: int,
    ) -> None:
        """``obeys``: the game is simonsays."""
        self._path, self._obeys, self._habits, self._draw = path, obeys, habits, draw
        self._next = 0
        self._spare = steps - len(path)
        self._drawn_for = -1
        self._aside: list[Turn] = []
        self._lesson = ""

    def act(self, observation: str) -> Turn:
        """The next action of the path, or a habit before it.

        Raises:
            ExpertFailed: the path is at its end, and the task is not done.
        """
        if self._aside:
            return self._aside.pop(0)
        if self._next == len(self._path):
            raise ExpertFailed("the gold path is at its end, and the task is not done")
        action = self._path[self._next]
        first, *self._aside = self._whim(action) or [self._planned(action)]
        return first

    def _planned(self, action: str) -> Turn:
        self._next += 1
        lesson, self._lesson = self._lesson, ""
        return Turn(f"{lesson} {self._reason(action)}".strip(), action)

    def _reason(self, action: str) -> str:
        return "I do what Simon says." if self._obeys else thought_of(action)

    def _whim(self, action: str) -> list[Turn]:
        """The turns of a habit before an action; none where no habit is indulged."""
        if self._drawn_for == self._next or self._spare < 1:
            return []
        self._drawn_for = self._next
        # All are drawn at every occasion, so that one probability does not shift another's draws.
        look, which, slip, detour = (self._draw.random() for _ in range(4))
        turns: list[Turn] = []
        if look < self._habits.look and not self._obeys:
            around = which < 0.5 and action != "look around"
            seen = "look around" if around else "inventory"
            turns = [Turn(thought_of(seen), seen)]
        elif slip < self._habits.slip and (wrong := _misspoken(action)):
            turns = [Turn(self._reason(action), wrong)]
            self._lesson = "That was not understood. I say it in the game's words."
        elif detour < self._habits.detour and not self._obeys and self._next:
            turns = _astray(self._path[self._next - 1])
        if len(turns) > self._spare:
            return []
        self._spare -= len(turns)
        return turns


def _misspoken(action: str) -> str:
    """The action in words that no game knows; empty where there are none."""
    for right, wrong in _SLIPS.items():
        if action.startswith(right):
            return wrong + action.removeprefix(right)
    return ""


def _astray(last: str) -> list[Turn]:
    """A detour after the last action of the path: back and forth, or a second reading."""
    verb, _, rest = last.partition(" ")
    if verb == "move" and rest in _BACK:
        return [
            Turn("I may have missed something, so I go back.", f"move {_BACK[rest]}"),
            Turn("There is nothing new, so I return.", last),
        ]
    return [Turn("I read it once more, to be sure.", last)] if verb == "read" else []
