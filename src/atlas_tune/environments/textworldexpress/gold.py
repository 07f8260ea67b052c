"""Gold paths: the solutions of the package's own agents, seeded and played out."""

from __future__ import annotations

from atlas_tune.environments.base import ExpertFailed
from atlas_tune.environments.habits import seeded
from atlas_tune.environments.textworldexpress.games import Task
from atlas_tune.environments.textworldexpress.simulator import Game, Simulator

_ATTEMPTS = 30
"""A walk at random finds the coin in two of three attempts."""


def gold_path(java: Simulator, task: Task, seed: int, steps: int) -> tuple[str, ...]:
    """Actions that end a task in success, ``steps`` at most; the same ones for the same seed.

    Raises:
        ExpertFailed: no attempt of the package's agent did.
        EnvironmentLost: the simulator died or hangs.
    """
    game = Game(java)
    for attempt in range(_ATTEMPTS):
        lot = seeded("textworldexpress gold", task.id, seed, attempt).getrandbits(31)
        found = game.solved(task, lot)
        path = None if found is None else _until_success(game, task, found[:steps])
        if path is not None:
            return path
    raise ExpertFailed(
        f"TextWorldExpress's own agent did not solve {task.id} in {steps} steps, {_ATTEMPTS} times"
    )


def _until_success(game: Game, task: Task, path: tuple[str, ...]) -> tuple[str, ...] | None:
    """The path up to its success, after which the package's agents may walk on.

    What the game does not take is left out: it changes nothing (in simonsays a path may begin
    with no words at all).
    """
    state = game.start(task)
    played: list[str] = []
    for action in path:
        if action in state.valid_actions:
            state = game.act(action)
            played.append(action)
        if state.ended:
            return tuple(played) if state.succeeded else None
    return None
