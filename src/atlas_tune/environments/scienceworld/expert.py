"""The expert: ScienceWorld's gold path, with small human habits on the way.

What each habit means here; each is drawn before every action of the path:

- ``look``: "look around", or "inventory".
- ``slip``: the action in words that the simulator does not know ("walk to" for "go to"); the
  right words follow.
- ``detour``: "wait1", which lets a moment pass.

A habit is indulged only while the whole path still fits below the step limit, and never between
an ambiguous request and the number that answers it.
"""

from __future__ import annotations

import random

from atlas_tune.environments.base import ExpertFailed, Turn
from atlas_tune.environments.habits import Habits

NOT_UNDERSTOOD = "No known action matches that input."
AMBIGUOUS = "Ambiguous request"
_SLIPS = {
    "go to ": "walk to ",
    "pick up ": "grab ",
    "focus on ": "choose ",
    "move ": "bring ",
    "open ": "unlock ",
    "activate ": "start ",
}
_REASONS = (
    ("focus on ", "The task is about the {}, so I focus on it."),
    ("go to ", "The next thing to do is elsewhere, so I go to the {}."),
    ("open door to ", "The way leads through the door to the {}."),
    ("look around", "I look at what is here."),
    ("look at ", "I want to know more about the {}."),
    ("examine ", "I want to know more about the {}."),
    ("pick up ", "I need the {}, so I take it."),
    ("open ", "I may need what is in the {}, so I open it."),
    ("activate ", "The {} must be on."),
    ("deactivate ", "The {} is no longer needed."),
    ("wait", "What happens now takes time, so I wait."),
    ("read ", "The {} may say what I need to know."),
    ("inventory", "I check what I have."),
    ("connect ", "The circuit needs a connection: {}."),
)


def thought_of(action: str) -> str:
    """A plain sentence in front of an action.

    >>> thought_of("pick up thermometer"), thought_of("use thermometer on ice")
    ('I need the thermometer, so I take it.', 'Next I use thermometer on ice.')
    """
    for start, words in _REASONS:
        if action.startswith(start):
            return words.format(action.removeprefix(start))
    return "The request has several meanings." if action.isdigit() else f"Next I {action}."


class GoldExpert:
    """Plays a gold path; ``steps`` is the limit that its habits respect."""

    def __init__(
        self, path: tuple[str, ...], *, habits: Habits, draw: random.Random, steps: int
    ) -> None:
        self._path, self._habits, self._draw = path, habits, draw
        self._next = 0
        self._spare = steps - len(path)
        self._asked = -1
        self._lesson = ""

    def act(self, observation: str) -> Turn:
        """The next action of the path, or a habit before it.

        Raises:
            ExpertFailed: the path is at its end, and the task is not done.
        """
        if self._next == len(self._path):
            raise ExpertFailed("the gold path is at its end, and the task is not done")
        action = self._path[self._next]
        whim = self._whim(action, observation)
        if whim is not None:
            self._spare -= 1
            return whim
        self._next += 1
        lesson, self._lesson = self._lesson, ""
        return Turn(f"{lesson} {thought_of(action)}".strip(), action)

    def _whim(self, action: str, observation: str) -> Turn | None:
        """The habit before an action, if one is indulged; each action is one occasion."""
        if self._spare < 1 or self._asked == self._next or observation.startswith(AMBIGUOUS):
            return None
        self._asked = self._next
        # All are drawn at every occasion, so that one probability does not shift another's draws.
        look, which, slip, detour = (self._draw.random() for _ in range(4))
        if look < self._habits.look:
            where = which < 0.5
            action = "look around" if where else "inventory"
            return Turn(thought_of(action), action)
        wrong = next((s for s in _SLIPS if action.startswith(s)), None)
        if slip < self._habits.slip and wrong is not None:
            self._lesson = "That was not understood. I say it in other words."
            return Turn(thought_of(action), _SLIPS[wrong] + action.removeprefix(wrong))
        if detour < self._habits.detour:
            return Turn("I wait a moment and see whether anything changes.", "wait1")
        return None
