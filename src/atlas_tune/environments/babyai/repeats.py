"""Which test seeds are left out, because their world is met under another seed.

A small level has few worlds: GoToObjS4 is a room of two by two cells, and most of its test seeds
make the very world of some train seed. minigrid alone can tell, in half a minute, so the answer
is shipped as ``repeated_seeds.json``. This writes it again (docs/environments/babyai.md):

    python -m atlas_tune.environments.babyai.repeats
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from atlas_tune.environments.babyai.levels import (
    LEVELS,
    REPEATED_SEEDS,
    TEST_SEEDS,
    TRAIN_SEEDS,
    Level,
    grid_world,
)
from atlas_tune.progress import say

World = tuple[object, ...]
"""All that decides how an episode goes, as a value: equal worlds are one task."""


def world_of(level: Level, seed: int) -> World:
    """The world in which the task of a seed begins.

    The grid's encoding holds walls, things and the states of doors; no box of our levels holds
    anything, and no move draws lots.
    """
    grid = grid_world(level)
    grid.reset(seed=seed)
    x, y = grid.agent_pos
    encoded = grid.grid.encode()
    return (
        encoded.shape,
        encoded.tobytes(),
        (int(x), int(y)),
        int(grid.agent_dir),
        _in_hand(grid.carrying),
        str(grid.mission),
    )


def find_repeated(level: Level) -> list[int]:
    """The test seeds whose world is that of a train seed or of an earlier test seed."""
    met = {world_of(level, seed) for seed in TRAIN_SEEDS}
    repeated = []
    for seed in TEST_SEEDS:
        world = world_of(level, seed)
        if world in met:
            repeated.append(seed)
        met.add(world)
    return repeated


def write_repeated() -> None:
    """Write the seeds of all levels, a level a line."""
    lines = []
    for level in LEVELS.values():
        seeds = find_repeated(level)
        say(f"{level.name}: {len(seeds)} of {len(TEST_SEEDS)} test seeds repeat a world.")
        lines.append(f"{json.dumps(level.name)}: {json.dumps(seeds, separators=(',', ':'))}")
    path = Path(__file__).with_name(REPEATED_SEEDS)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _in_hand(thing: Any) -> tuple[int, ...] | None:
    return None if thing is None else tuple(map(int, thing.encode()))


if __name__ == "__main__":
    write_repeated()
