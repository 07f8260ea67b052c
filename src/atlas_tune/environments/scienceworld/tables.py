"""What is asked of the simulator once and kept: variations of tasks, and gold paths.

Both follow from ScienceWorld's version alone, which stands in their path.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from atlas_tune.environments.scienceworld.simulator import Game, simulator
from atlas_tune.places import cache_directory
from atlas_tune.replacing import replacing

SPLITS = {"train": "getVariationsTrain", "dev": "getVariationsDev", "test": "getVariationsTest"}


@cache
def task_names() -> dict[str, str]:
    """ScienceWorld's tasks by their keys ("1-1": "boil"), in its order."""
    from scienceworld.constants import ID2TASK

    return dict(ID2TASK)


def variations(split: str) -> dict[str, list[int]]:
    """The variations of each task in a split, by ScienceWorld's own lists."""
    found: dict[str, list[int]] = _table()[split]
    return found


def is_listed() -> bool:
    """Whether the variations are kept already, so that no simulator is started to list them."""
    return _table_path().is_file()


def counts() -> dict[str, int]:
    """How many variations each task has."""
    found: dict[str, int] = _table()["counts"]
    return found


def gold_path(task: str, variation: int) -> tuple[str, ...]:
    """The actions of ScienceWorld's own solver; making them takes up to 16 seconds, once.

    Raises:
        EnvironmentLost: the simulator died or hangs.
    """

    def make() -> list[str]:
        game = Game(simulator())
        game.load(task, variation, gold=True)
        return game.texts("getGoldActionSequence")

    return tuple(_kept(_folder() / "gold" / f"{task}-{variation}.json", make))


def _table() -> dict[str, Any]:
    return _read_table(_table_path())


def _table_path() -> Path:
    return _folder() / "variations.json"


@cache
def _read_table(path: Path) -> dict[str, Any]:
    table: dict[str, Any] = _kept(path, _ask_variations)
    return table


def _ask_variations() -> dict[str, Any]:
    table: dict[str, Any] = {name: {} for name in ("counts", *SPLITS)}
    game = Game(simulator())
    for task in task_names().values():
        # The lists are those of the loaded task, so every task is loaded once: a few seconds.
        game.load(task, 0)
        table["counts"][task] = int(game.ask("getTaskMaxVariations", task))
        for split, method in SPLITS.items():
            table[split][task] = game.numbers(method)
    return table


def _folder() -> Path:
    return cache_directory() / "scienceworld" / version("scienceworld")


def _kept(path: Path, make: Callable[[], Any]) -> Any:
    """What the file holds; it is made if it is not there or cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        made = make()
        with replacing(path) as partial:
            partial.write_text(json.dumps(made), encoding="utf-8")
        return made
