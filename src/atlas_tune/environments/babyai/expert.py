"""The expert with its habits: it looks around, errs and mends, and strays, seeded and bounded.

An occasion is a turn of the direct expert. On each, at most one habit shows, and the turn itself
follows it:

- look: it turns aside and back, or checks the available actions;
- slip: it words the action wrongly and is refused, or goes to a wrong thing;
- detour: it goes to a thing that the mission does not name.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from atlas_tune.environments.babyai.direct import DirectExpert
from atlas_tune.environments.babyai.menu import CHECK
from atlas_tune.environments.base import Turn
from atlas_tune.environments.habits import Habits, seeded

if TYPE_CHECKING:
    from atlas_tune.environments.babyai.env import BabyAI

MOST_HABITS = 4
"""Habits in one episode; each costs two turns at most, and few turns more to walk back."""

# Wordings that AgentTraj-L's agents try and the environment does not know.
_MISWORDINGS = {
    "turn left": "turn around",
    "turn right": "turn around",
    "move forward": "go forward",
    "toggle": "open door",
    "drop": "put down",
}


class BabyAIExpert:
    """An Expert (environments.base) for the running task of a BabyAI environment."""

    def __init__(self, env: BabyAI, seed: int, habits: Habits) -> None:
        self._direct = DirectExpert(env)
        self._random = seeded(env.task_id, seed)
        self._habits = habits
        self._habits_left = MOST_HABITS
        self._pending: deque[Turn] = deque()
        self._remark = ""
        self._just_strayed = False

    def moved(self, move: int) -> None:
        """Follow a move that was made; the environment tells of each."""
        self._direct.moved(move)

    def act(self, observation: str) -> Turn:
        """The next turn.

        Raises:
            ExpertFailed: the bot is at a loss; the task is to be left out.
        """
        if not self._pending and not self._just_strayed and self._habits_left:
            self._pending.extend(self._stray())
            self._just_strayed = bool(self._pending)
        if self._pending:
            self._habits_left -= len(self._pending) == 1
            return self._pending.popleft()
        self._just_strayed = False
        # Naming what is in view comes before deciding: a small student that copies the names can
        # tell whether its goal is among them; one that jumps to the decision cannot.
        seen = self._direct.in_view()
        turn = self._direct.turn()
        remark, self._remark = self._remark, ""
        return replace(turn, thought=f"{remark} {seen} {turn.thought}".strip())

    def _stray(self) -> list[Turn]:
        """The turns of a habit, where one shows on this occasion."""
        # Always the same number of draws, so that one habit's rate does not shift the others.
        draws = [self._random.random() for _ in range(3)]
        pick = random.Random(self._random.random())
        if draws[0] < self._habits.look:
            return self._look(pick)
        if draws[1] < self._habits.slip:
            return self._slip(pick)
        if draws[2] < self._habits.detour:
            return self._detour(pick)
        return []

    def _look(self, pick: random.Random) -> list[Turn]:
        # One who is exploring turns anyway; turning aside would only look like more of it.
        if self._direct.exploring() or pick.random() < 0.5:
            return [Turn("Let me see what I can do here.", CHECK)]
        aside, back = pick.choice([("left", "right"), ("right", "left")])
        return [
            Turn(f"Let me look to the {aside} first.", f"turn {aside}"),
            Turn("That does not help me. I turn back.", f"turn {back}"),
        ]

    def _slip(self, pick: random.Random) -> list[Turn]:
        seen, turn = self._direct.in_view(), self._direct.turn()
        strangers = self._direct.strangers()
        if turn.action.startswith(("go to", "pickup")) and strangers and pick.random() < 0.5:
            name, action = pick.choice(strangers)
            self._remark = f"That was a mistake: I need {self._direct.target()}, not the {name}."
            return [Turn(f"{seen} I see the {name}. I go to it.", action)]
        self._remark = "That did not work."
        return [Turn(f"{seen} {turn.thought}", _misworded(turn.action))]

    def _detour(self, pick: random.Random) -> list[Turn]:
        strangers = self._direct.strangers()
        if not strangers:
            return []
        name, action = pick.choice(strangers)
        self._remark = "Back to my goal."
        return [Turn(f"I want to see the {name} up close.", action)]


def _misworded(action: str) -> str:
    """The action as one might put it who forgets how it is put.

    >>> _misworded("pickup red ball 1"), _misworded("go to red ball 1")
    ('pick up red ball 1', 'go to red ball')
    """
    if action in _MISWORDINGS:
        return _MISWORDINGS[action]
    if action.startswith("pickup"):
        return action.replace("pickup", "pick up", 1)
    if action.startswith("toggle and "):
        return action.removeprefix("toggle and ")
    return action.rpartition(" ")[0]
