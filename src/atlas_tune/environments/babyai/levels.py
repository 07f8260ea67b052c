"""The eighteen BabyAI levels that AgentGym uses, and how a task of ours is named.

A task is a level and a seed: "babyai/GoToRedBall/1003". AgentGym instead counts tasks through
forty levels, seed by seed: its task n is level ``n % 40 + 1`` of the forty with seed ``n // 40``.
"""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from atlas_tune.errors import UsageError, nearest

TRAIN_SEEDS = range(279)
"""AgentGym's training runs hold the seeds 0 to 278 of every level."""
TEST_SEEDS = range(1000, 1500)
"""Of these a level leaves out the ones that repeat a world: see :func:`seeds_of`."""
REPEATED_SEEDS = "repeated_seeds.json"
"""The file in this package that holds them, level by level; ``repeats.py`` writes it."""

_AGENTGYM_LEVELS = 40
_OUR_ID = re.compile(r"babyai/([A-Za-z0-9]+)/(0|[1-9][0-9]{0,8})")
_AGENTGYM_ID = re.compile(r"babyai_([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Level:
    """One level: its place among AgentGym's forty and its name in minigrid's registry."""

    number: int
    name: str
    gym_id: str


LEVELS = {
    name: Level(number, name, f"BabyAI-{name}-{version}")
    for number, name, version in (
        (1, "GoToRedBallGrey", "v0"),
        (2, "GoToRedBall", "v0"),
        (3, "GoToRedBallNoDists", "v0"),
        (4, "GoToObjS4", "v0"),
        (5, "GoToLocalS8N7", "v0"),
        (6, "GoToObjMazeS7", "v0"),
        (7, "GoToImpUnlock", "v0"),
        (8, "GoToSeqS5R2", "v0"),
        (9, "GoToRedBlueBall", "v0"),
        (10, "GoToDoor", "v0"),
        (11, "GoToObjDoor", "v0"),
        (19, "PickupLoc", "v0"),
        (20, "PickupDistDebug", "v0"),
        (21, "PickupAbove", "v0"),
        (30, "ActionObjDoor", "v0"),
        (31, "FindObjS7", "v0"),
        (33, "OneRoomS20", "v0"),
        (36, "SynthLoc", "v0"),
    )
}
UNSEEN_LEVELS = {
    name: Level(number, name, f"BabyAI-{name}-v0")
    for number, name in (
        (12, "Open"),
        (14, "OpenDoorLoc"),
        (17, "Pickup"),
        (22, "PutNextLocalS6N4"),
        (25, "UnlockLocalDist"),
    )
}
"""Levels that neither our train split nor AgentGym's runs hold: other goals with the same actions.
Of AgentGym's other 22 these are five that the expert mostly solves in 20 turns, and in which no two
test seeds make one world."""
_BY_NUMBER = {level.number: level for level in LEVELS.values()}


def task_id(level: Level, seed: int) -> str:
    """The name of a task.

    >>> task_id(LEVELS["GoToRedBall"], 1003)
    'babyai/GoToRedBall/1003'
    """
    return f"babyai/{level.name}/{seed}"


def parse_task(name: str) -> tuple[Level, int]:
    """Level and seed of a task, named our way or AgentGym's.

    >>> parse_task("babyai_41") == (LEVELS["GoToRedBall"], 1)
    True

    Raises:
        UsageError: the name is neither, or its level is not one of the eighteen.
    """
    if ours := _OUR_ID.fullmatch(name):
        level, seed = ours.groups()
        return find_level(level), int(seed)
    if theirs := _AGENTGYM_ID.fullmatch(name):
        seed_number, place = divmod(int(theirs.group(1)), _AGENTGYM_LEVELS)
        if place + 1 not in _BY_NUMBER:
            raise UsageError(
                f"'{name}' is level {place + 1} of AgentGym's forty, of which it uses only "
                f"{', '.join(map(str, _BY_NUMBER))}: choose a task of one of these."
            )
        return _BY_NUMBER[place + 1], seed_number
    raise UsageError(
        f"'{name}' names no BabyAI task: write babyai/<level>/<seed>, such as "
        "babyai/GoToRedBall/1003, or AgentGym's babyai_<number>."
    )


def find_level(name: str) -> Level:
    """The level of a name.

    Raises:
        UsageError: there is none; the message names the nearest.
    """
    known = {**LEVELS, **UNSEEN_LEVELS}
    if name not in known:
        raise UsageError(f"BabyAI has no level '{name}': {nearest(name, known)}")
    return known[name]


def levels_of(split: str) -> dict[str, Level]:
    """The levels of a split: ``unseen`` has its own, and all others the eighteen."""
    return UNSEEN_LEVELS if split == "unseen" else LEVELS


@cache
def seeds_of(level: Level, split: str) -> Sequence[int]:
    """The seeds of a level's tasks in a split.

    For test and unseen, without the seeds whose world is that of a train seed or of an earlier
    one.
    """
    if split == "train":
        return TRAIN_SEEDS
    repeated = set(_repeated_seeds().get(level.name, ()))
    return tuple(seed for seed in TEST_SEEDS if seed not in repeated)


def grid_world(level: Level) -> Any:
    """minigrid's environment of a level, bare: none of Gymnasium's wrappers, no rendering.

    Imported here and not above, because minigrid brings pygame.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import gymnasium

    minigrid = importlib.import_module("minigrid")
    if level.gym_id not in gymnasium.registry:
        minigrid.register_minigrid_envs()
    # minigrid tells stdout of each layout that it throws away; nobody asked.
    generator = importlib.import_module("minigrid.envs.babyai.core.roomgrid_level")
    generator.print = lambda *_: None  # type: ignore[attr-defined]
    return gymnasium.make(level.gym_id, disable_env_checker=True).unwrapped


@cache
def _repeated_seeds() -> dict[str, list[int]]:
    text = files(__package__).joinpath(REPEATED_SEEDS).read_text(encoding="utf-8")
    repeated: dict[str, list[int]] = json.loads(text)
    return repeated
