"""The eight games, the seeds of each split, and the tasks that both make."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from atlas_tune.errors import UsageError, nearest

ENVIRONMENT = "textworldexpress"
SPLITS = {
    "train": range(0, 1000),
    "dev": range(10_000, 11_000),
    "test": range(20_000, 21_000),
}
"""The package's seeds of each split. A split has its own recipes, places and sums, too."""


@dataclass(frozen=True, slots=True)
class GameKind:
    """One of the games."""

    parameters: str
    """What the package is told; where nothing stands, its own defaults hold."""
    gold_agent: str
    """The Java class that solves it."""


GAMES = {
    "cookingworld": GameKind(
        "numLocations=5, numIngredients=3, numDistractorItems=5, includeDoors=1, "
        "limitInventorySize=1",
        "CookingWorldGoldAgent",
    ),
    "twc": GameKind(
        "numLocations=3, numItemsToPutAway=3, includeDoors=1, limitInventorySize=0", "TWCGoldAgent"
    ),
    "coin": GameKind(
        "numLocations=11, numDistractorItems=4, includeDoors=1, limitInventorySize=0",
        "CoinGoldAgent",
    ),
    "mapreader": GameKind(
        "numLocations=11, maxDistanceApart=4, maxDistractorItemsPerLocation=2, includeDoors=0, "
        "limitInventorySize=0",
        "MapReaderGoldAgent",
    ),
    "arithmetic": GameKind("", "ArithmeticGoldAgent"),
    "sorting": GameKind("", "SortingGoldAgent"),
    "simonsays": GameKind("", "SimonSaysGoldAgent"),
    "peckingorder": GameKind("", "PeckingOrderGoldAgent"),
}


@dataclass(frozen=True, slots=True)
class Task:
    """A game and the seed that decides all of it."""

    game: str
    seed: int

    @property
    def id(self) -> str:
        """The task id, "textworldexpress/<game>/<seed>"."""
        return f"{ENVIRONMENT}/{self.game}/{self.seed}"

    @property
    def split(self) -> str:
        """The split that the seed stands in."""
        return next(split for split, seeds in SPLITS.items() if self.seed in seeds)

    @classmethod
    def parse(cls, task_id: object) -> Task:
        """The task of an id.

        Raises:
            UsageError: it names no task.
        """
        parts = task_id.split("/") if isinstance(task_id, str) else []
        if len(parts) != 3 or parts[0] != ENVIRONMENT:
            raise UsageError(
                f"{ENVIRONMENT} has no task {task_id!r}: a task is one of tasks(split), such as "
                f"'{ENVIRONMENT}/coin/0'."
            )
        _, game, number = parts
        if game not in GAMES:
            raise UsageError(f"{ENVIRONMENT} has no game '{game}': {nearest(game, list(GAMES))}")
        if number.isascii() and number.isdigit() and len(number) < 6 and str(int(number)) == number:
            task = cls(game, int(number))
            if any(task.seed in seeds for seeds in SPLITS.values()):
                return task
        ranges = ", ".join(f"{s} {seeds[0]} to {seeds[-1]}" for s, seeds in SPLITS.items())
        raise UsageError(f"{ENVIRONMENT} has no task {task_id!r}: the seeds are {ranges}.")


def tasks_of(split: str, games: list[str]) -> list[str]:
    """The ids of the split's tasks, the games taking turns, each in an order of no meaning."""
    of_game = [
        sorted((Task(game, seed).id for seed in SPLITS[split]), key=_shuffled) for game in games
    ]
    return [task for turn in zip(*of_game, strict=True) for task in turn]


def chosen_games(value: object) -> list[str]:
    """The games that the task option ``games`` asks for, each once.

    Raises:
        UsageError: it is no name or list of names, or names no game.
    """
    asked = [value] if isinstance(value, str) else value
    if (
        not isinstance(asked, list | tuple)
        or not asked
        or not all(isinstance(name, str) for name in asked)
    ):
        raise UsageError(
            f"{ENVIRONMENT}'s task option 'games' is the name of a game or a list of names, not "
            f"{value!r}."
        )
    for name in asked:
        if name not in GAMES:
            raise UsageError(f"{ENVIRONMENT} has no game '{name}': {nearest(name, list(GAMES))}")
    return list(dict.fromkeys(asked))


def _shuffled(task_id: str) -> str:
    return hashlib.sha256(task_id.encode()).hexdigest()
