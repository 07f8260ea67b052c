"""The tasks we make ourselves, and the names that decide them.

``textcraft/stone-brick-stairs/d2/c6/0`` is the goal, its depth (crafts that lie one under the
other), the number of commands shown, and the variant. A route of commands that solves the task is
always among those shown; the rest are distractors, first such as use an ingredient of the route.
The variant decides the kinds of generic ingredients, the distractors and their order. Every
choice is by SHA-256 of its name, so a task is the same on any machine and in any Python.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cache, lru_cache

from atlas_tune.environments.textcraft.plan import Craft, solve
from atlas_tune.environments.textcraft.recipes import Recipe, recorded_goals, table
from atlas_tune.environments.textcraft.rules import Rules
from atlas_tune.environments.textcraft.task import Task
from atlas_tune.errors import UsageError, nearest

MAX_COMMANDS = 40
MAX_ACTIONS = 14
"""Goals that take more actions are left out, so that habits have room below the step limit."""

# Numbers without leading zeros, so that a task has one name only.
_NUMBER = r"(0|[1-9][0-9]{0,8})"
_TASK_ID = re.compile(rf"textcraft/([a-z-]+)/d{_NUMBER}/c{_NUMBER}/{_NUMBER}")


def is_task_id(text: str) -> bool:
    """Whether a text has the form of our task ids."""
    return _TASK_ID.fullmatch(text) is not None


@lru_cache(maxsize=8192)
def build(task_id: str) -> Task:
    """The task of an id.

    Raises:
        UsageError: the id is not of our form, or names no goal, or a wrong depth or number.
    """
    match = _TASK_ID.fullmatch(task_id)
    if match is None:
        raise UsageError(
            f"'{task_id}' is no TextCraft task: the form is textcraft/GOAL/dDEPTH/cCOMMANDS/"
            "VARIANT, for example textcraft/stone-brick-stairs/d2/c6/0."
        )
    goal, depth, commands, variant = match[1].replace("-", " "), *map(int, match.groups()[1:])
    if goal not in table().by_item:
        hint = nearest(match[1], (item.replace(" ", "-") for item in table().by_item))
        raise UsageError(f"'{task_id}': no recipe makes '{match[1]}'; {hint.split(' Known')[0]}")
    if depth != table().depths[goal]:
        raise UsageError(f"'{task_id}': '{goal}' has depth {table().depths[goal]}, not {depth}.")
    route, _ = find_route(goal, variant)
    if not len(route) <= commands <= MAX_COMMANDS:
        raise UsageError(
            f"'{task_id}': {commands} commands cannot be shown; the goal needs {len(route)} and "
            f"at most {MAX_COMMANDS} are allowed."
        )
    shown = (*route, *_distractors(route, commands - len(route), goal, variant))
    return Task(_ranked(shown, "order", goal, variant), goal)


def list_tasks(
    split: str,
    *,
    depth: int | None = None,
    commands: int = 8,
    actions: int = MAX_ACTIONS,
    variants: int = 4,
) -> list[str]:
    """The ids of a split: every goal in a shuffled order, then every goal again, varied.

    ``commands`` are shown, or more where the goal needs more; ``actions`` bounds the fewest
    actions that solve a task.
    """
    ids = []
    for variant in range(variants):
        for goal in _goals(split):
            if depth is not None and table().depths[goal] != depth:
                continue
            route, length = find_route(goal, variant)
            if length <= actions:
                shown = max(commands, len(route))
                slug = goal.replace(" ", "-")
                ids.append(f"textcraft/{slug}/d{table().depths[goal]}/c{shown}/{variant}")
    return ids


@lru_cache(maxsize=8192)
def find_route(goal: str, variant: int) -> tuple[tuple[Recipe, ...], int]:
    """The commands that solve a goal at its depth in the fewest actions, and that number."""
    game = table()
    tree: list[Recipe] = []
    names = [goal]
    for name in names:
        if name in game.kinds:
            kinds = [k for k in game.kinds[name] if game.depths[k] == game.depths[name]]
            name = min(kinds, key=lambda kind: _rank(kind, name, goal, variant))
        for recipe in game.by_item.get(name, ()):
            # A recipe that lies deeper than another is no part of the route, so that the depth
            # in the task id is the depth of the route.
            if game.depth_of(recipe) == game.depths[name] and recipe not in tree:
                tree.append(recipe)
                names += [need for need, _ in recipe.needs]
    plan = solve(Rules(Task(_ranked(tree, "route", goal, variant), goal)), goal)
    assert plan is not None, f"the table holds no way to '{goal}'"
    used = {deed.recipe: None for deed in plan if isinstance(deed, Craft)}
    return tuple(used), len(plan)


def _distractors(
    route: tuple[Recipe, ...], count: int, goal: str, variant: int
) -> tuple[Recipe, ...]:
    """``count`` other commands, those that use an ingredient of the route first.

    None makes an item of the route, so the route stays the one way to it (but for the kinds of
    a generic ingredient). A smaller count gives the first of a larger one.
    """
    salt = ("distractors", goal, variant)
    made = {recipe.item for recipe in route}
    needed = {need for recipe in route for need, _ in recipe.needs}
    others = [recipe for recipe in table().recipes if recipe.item not in made]
    related = [r for r in others if any(need in needed for need, _ in r.needs)]
    chosen = _ranked(related, *salt)[:count]
    if len(chosen) < count:
        rest = [recipe for recipe in others if recipe not in chosen]
        chosen = (*chosen, *_ranked(rest, *salt)[: count - len(chosen)])
    return chosen


@cache
def _goals(split: str) -> tuple[str, ...]:
    """The goals of a split, shuffled once and for all, so that any first n are a fair sample."""
    recorded = recorded_goals()
    chosen = [item for item in table().by_item if (item in recorded) == (split == "train")]
    return tuple(sorted(chosen, key=lambda item: _rank(item, "goals")))


def _ranked(recipes: Iterable[Recipe], *salt: object) -> tuple[Recipe, ...]:
    return tuple(sorted(recipes, key=lambda recipe: _rank(recipe.command, *salt)))


def _rank(*parts: object) -> bytes:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
