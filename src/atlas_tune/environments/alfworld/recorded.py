"""ALFWorld's expert, as it was recorded: 3,554 runs, one of each solvable game of ``train``.

The expert looks for things where they might be, so nearly two thirds of its steps are not
necessary. What it did is recorded, what it thought is not: the thoughts are ours, made of the
action's own words.
"""

from __future__ import annotations

import json
from functools import cache

from atlas_tune.environments.alfworld.games import RUNS
from atlas_tune.environments.alfworld.telling import NOTHING_HAPPENS
from atlas_tune.environments.base import ExpertFailed, Turn
from atlas_tune.errors import UsageError
from atlas_tune.places import data_directory
from atlas_tune.trajectory.compression import open_bytes


class RecordedExpert:
    """Plays recorded actions, as long as the game answers them."""

    def __init__(self, actions: tuple[str, ...]) -> None:
        self._actions = iter(actions)

    def act(self, observation: str) -> Turn:
        """The next recorded action.

        Raises:
            ExpertFailed: there is none left, or the game refused the last one.
        """
        action = next(self._actions, None)
        if action is None or observation == NOTHING_HAPPENS:
            raise ExpertFailed("the recorded run does not lead to the goal in this game")
        return Turn(thought_of(action), action)


def recorded_actions(task_id: str) -> tuple[str, ...]:
    """The actions of the recorded run of a game.

    Raises:
        UsageError: the recorded runs are not on this machine.
        ExpertFailed: there is none of this game.
    """
    runs = _recorded_runs()
    if task_id not in runs:
        raise ExpertFailed(
            f"ALFWorld's expert was recorded on the games of 'train' alone, and not on {task_id}"
        )
    return runs[task_id]


def thought_of(action: str) -> str:
    """A plain sentence in front of an action.

    >>> thought_of("take mug 1 from desk 2")
    'Next I take mug 1 from desk 2.'
    """
    return f"Next I {action}."


@cache
def _recorded_runs() -> dict[str, tuple[str, ...]]:
    path = data_directory() / RUNS
    if not path.is_file():
        raise UsageError(
            "alfworld has no expert but recorded runs, and there are none here: set "
            f"ATLAS_TUNE_DATA to the directory that holds {RUNS}."
        )
    with open_bytes(path) as lines:
        records = [json.loads(line) for line in lines]
    return {
        record["id"]: tuple(
            turn["value"] for turn in record["conversations"] if turn["from"] == "gpt"
        )
        for record in records
    }
