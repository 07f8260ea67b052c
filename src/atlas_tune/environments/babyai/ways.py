"""Ways through the part of the room in view, as lists of moves."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from atlas_tune.environments.babyai.view import DIRECTIONS, VIEW, Cell, View

LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE = range(6)
"""minigrid's moves."""

Pose = tuple[Cell, int]
"""A cell and a direction."""


@dataclass(frozen=True, slots=True)
class Ways:
    """The moves onto each open door, and those to the cell before each thing, facing it."""

    onto: dict[Cell, list[int]]
    before: dict[Cell, list[int]]


def find_ways(view: View) -> Ways:
    """The ways to everything in view that can be reached; breadth-first search over poses.

    It chooses between equally short ways as AgentGym does, since the agent's last direction shows
    in every later observation: a pose may wait in the queue more than once, and the last
    pose to reach it before its turn is the one it is reached from. It walks through closed doors
    and through cells that are hidden: moves are tried until one fails.
    """
    blocked = {thing.cell for thing in view.things if thing.kind != "door"}
    columns, rows = _bounds(view)
    to_face = {thing.cell for thing in view.objects}
    to_enter = {thing.cell for thing in view.objects if thing.name.endswith("open door")}
    start = (view.position, view.direction)
    reached_from: dict[Pose, tuple[Pose, int]] = {}
    seen: set[Pose] = set()
    ways = Ways({}, {})
    queue = deque([start])
    while queue and (to_face or to_enter):
        pose = queue.popleft()
        seen.add(pose)
        cell, direction = pose
        forward = after(pose, FORWARD)
        if forward[0] in to_face:
            to_face.remove(forward[0])
            ways.before[forward[0]] = _moves(start, pose, reached_from)
        if cell in to_enter:
            to_enter.remove(cell)
            ways.onto[cell] = _moves(start, pose, reached_from)
        for move, following in (
            (FORWARD, forward),
            (LEFT, (cell, (direction - 1) % 4)),
            (RIGHT, (cell, (direction + 1) % 4)),
        ):
            if following in seen:
                continue
            x, y = following[0]
            if x in columns and y in rows and (x, y) not in blocked:
                queue.append(following)
                reached_from[following] = (pose, move)
    return ways


def after(pose: Pose, move: int) -> Pose:
    """The pose after a move that succeeds."""
    (x, y), direction = pose
    if move == FORWARD:
        step_x, step_y = DIRECTIONS[direction]
        return (x + step_x, y + step_y), direction
    turn = {LEFT: -1, RIGHT: 1}.get(move, 0)
    return (x, y), (direction + turn) % 4


def _moves(start: Pose, end: Pose, reached_from: dict[Pose, tuple[Pose, int]]) -> list[int]:
    moves = []
    while end != start:
        end, move = reached_from[end]
        moves.append(move)
    return moves[::-1]


def _bounds(view: View) -> tuple[range, range]:
    """The columns and rows that are searched: those in view, and AgentGym's one more.

    Where the view grows towards smaller coordinates from its far left corner, AgentGym's bounds
    take in the cell after the last one as well.
    """
    ahead, right = DIRECTIONS[view.direction], DIRECTIONS[(view.direction + 1) % 4]
    bounds = []
    for axis in (0, 1):
        corner = view.position[axis] + ahead[axis] * (VIEW - 1) - right[axis] * (VIEW // 2)
        end = corner + VIEW * (right[axis] - ahead[axis])
        bounds.append(range(end, corner + 1) if end < corner else range(corner, end))
    return bounds[0], bounds[1]
