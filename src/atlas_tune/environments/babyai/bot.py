"""What to do next: minigrid's BabyAIBot, read for its intention.

The bot plans single moves and keeps a stack of subgoals. It is told of every move that is made,
whoever chose it, and what it wants next is read off the top of its stack. Imported only where an
expert is asked for: it brings minigrid and pygame.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from minigrid.core.world_object import WorldObj
from minigrid.envs.babyai.core.verifier import ObjDesc, PickupInstr, PutNextInstr
from minigrid.utils.baby_ai_bot import (
    BabyAIBot,
    DropSubgoal,
    GoNextToSubgoal,
    OpenSubgoal,
    PickupSubgoal,
)

from atlas_tune.environments.babyai.mission import remaining
from atlas_tune.environments.babyai.view import Cell
from atlas_tune.environments.babyai.ways import FORWARD, TOGGLE, Pose, after

SEARCHES_PER_MOVE = 200
"""The bot's hangs are endless rounds of path search; its longest honest plans need a few dozen."""
ENOUGH_SEEN = 0.7
"""The share of a room's floor after which its closed doors are the better place to look."""

# The move after which the bot neither undoes nor ticks off anything.
_NOTHING = 6
_PUT_DOWN_HERE = "PutNext"


class BotLost(Exception):
    """The bot gave up or went round in circles."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What the bot wants: a verb, upon a cell, and the single move that begins it.

    The verbs are "go to", "pickup", "open", "put next to" (face a free cell beside ``cell``),
    "drop", "explore" and "done": the bot believes the goal reached. ``way`` holds the cells that
    lead there.
    """

    verb: str
    move: int
    cell: Cell | None = None
    way: tuple[Cell, ...] = ()


class Planner:
    """The bot in one episode; started anew, with its memory of the rooms, where it loses itself."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self._bot: Any = _Bot(world, remaining(world.instrs))
        self._move: int | None = None
        self._follow(_NOTHING)

    def moved(self, move: int) -> None:
        """Follow a move that was made."""
        if self._move is not None:
            self._follow(move)

    def intent(self) -> Intent:
        """What to do now.

        Raises:
            BotLost: the bot has no plan, even when started anew.
        """
        if self._move is None or not self._bot.stack:
            self._restart()
        if self._bot.stack and self._bot.stack[-1].is_exploratory():
            self._leave_room()
        return self._read()

    def can_walk(self, pose: Pose, moves: Iterable[int]) -> bool:
        """Whether the moves from a pose lead only over floor that has been seen to be free.

        AgentGym's ways lead through hidden cells and closed doors too, and get stuck there.
        """
        toggled = False
        for move in moves:
            pose = after(pose, move)
            if move == FORWARD and not toggled:
                thing = self._world.grid.get(*pose[0])
                free = thing is None or (thing.type == "door" and thing.is_open)
                if not (free and self._bot.vis_mask[pose[0]]):
                    return False
            toggled = toggled or move == TOGGLE
        return True

    def distance(self, start: Cell, end: Cell) -> int | None:
        """The number of cells from one to the other over known floor, or None."""
        path, _, _ = self._bot._breadth_first_search(
            [(*start, 1, 0)], lambda cell, _: tuple(cell) == end, ignore_blockers=False
        )
        return None if path is None else len(path)

    def _follow(self, move: int) -> None:
        try:
            self._move = self._bot.advise(move)
            self._keep_load()
        except BotLost:
            self._move = None

    def _restart(self) -> None:
        """A new bot for what is left of the mission, which knows the cells seen so far."""
        instructions = remaining(self._world.instrs)
        seen = self._bot.vis_mask
        self._bot = _Bot(self._world, instructions)
        self._bot.vis_mask = seen
        if self._world.carrying and instructions:
            self._use_hands(instructions[0])
        self._move = self._bot.advise(_NOTHING)
        self._keep_load()

    def _use_hands(self, first: Any) -> None:
        """A new bot believes its hands empty: let it drop what it holds, or go on putting it."""
        stack = self._bot.stack
        if isinstance(first, PutNextInstr) and self._world.carrying in first.desc_move.obj_set:
            del stack[-2:]
        elif isinstance(first, PickupInstr | PutNextInstr):
            stack.append(DropSubgoal(self._bot))
            stack.append(GoNextToSubgoal(self._bot, self._bot._find_drop_pos()))

    def _keep_load(self) -> None:
        """Carry on what is in hand, where the bot would drop it though no hand is needed later."""
        stack = self._bot.stack
        while not any(isinstance(goal, PickupSubgoal) for goal in stack):
            if stack and _is_needless_drop(stack[-1]):
                del stack[-1:]
            elif len(stack) > 1 and _is_needless_drop(stack[-2]) and _is_walk(stack[-1]):
                del stack[-2:]
            else:
                return
            self._move = self._bot.advise(_NOTHING)

    def _leave_room(self) -> None:
        """Explore by the nearest closed door once the room holds little more to see.

        The bot would first look at every last corner and wall, many turns for a small chance.
        """
        world, bot = self._world, self._bot
        here = world.agent_pos if world.grid.get(*world.agent_pos) is None else world.front_pos
        ahead = world.grid.get(*here)
        if ahead is not None and ahead.type == "wall":
            return
        room = world.room_from_pos(*here)
        (left, top), (width, height) = room.top, room.size
        floor = bot.vis_mask[left + 1 : left + width - 1, top + 1 : top + height - 1]
        if floor.mean() < ENOUGH_SEEN:
            return
        doors = [
            (len(way), place, door)
            for door, place in zip(room.doors, room.door_pos, strict=True)
            if door and not door.is_open and not door.is_locked and bot.vis_mask[place]
            if (way := self._way(place))
        ]
        if doors:
            _, _, nearest = min(doors, key=lambda found: found[:2])
            while bot.stack and bot.stack[-1].is_exploratory():
                bot.stack.pop()
            bot.stack.append(OpenSubgoal(bot))
            bot.stack.append(GoNextToSubgoal(bot, nearest, reason="Open"))
            self._move = bot.advise(_NOTHING)

    def _read(self) -> Intent:
        if self._move is None:
            raise BotLost("the bot has no next move")
        stack = self._bot.stack
        if not stack:
            return Intent("done", self._move)
        x, y = (int(n) for n in self._world.front_pos)
        for kind, verb in (
            (PickupSubgoal, "pickup"),
            (DropSubgoal, "drop"),
            (OpenSubgoal, "open"),
        ):
            if isinstance(stack[-1], kind):
                return Intent(verb, self._move, (x, y))
        exploring = stack[-1].is_exploratory()
        if not isinstance(stack[-1], GoNextToSubgoal):
            return Intent("explore", self._move)
        cell = self._cell(stack[-1])
        way = () if cell is None else self._way(cell)
        if cell is None or exploring:
            return Intent("explore", self._move, cell, way)
        below = stack[-2] if len(stack) > 1 else None
        if isinstance(below, PickupSubgoal):
            return Intent("pickup", self._move, cell, way)
        if stack[-1].reason == _PUT_DOWN_HERE:
            return Intent("put next to", self._move, cell, way)
        if isinstance(below, OpenSubgoal):
            return Intent("open", self._move, cell, way)
        return Intent("go to", self._move, cell, way)

    def _cell(self, goal: Any) -> Cell | None:
        found = goal.datum
        if isinstance(found, ObjDesc):
            _, found = self._bot._find_obj_pos(found, goal.reason == _PUT_DOWN_HERE)
        elif isinstance(found, WorldObj):
            found = found.cur_pos
        return None if found is None else (int(found[0]), int(found[1]))

    def _way(self, cell: Cell) -> tuple[Cell, ...]:
        path, _, _ = self._bot._shortest_path(
            lambda position, _: tuple(position) == cell, try_with_blockers=True
        )
        return tuple((int(x), int(y)) for x, y in path or ())


class _Bot(BabyAIBot):
    """BabyAIBot, with an end to its searches."""

    def __init__(self, world: Any, instructions: list[Any]) -> None:
        super().__init__(world)  # type: ignore[no-untyped-call]
        self._searches = 0
        self.stack = []
        for instruction in reversed(instructions):
            self._process_instr(instruction)

    def advise(self, move: int) -> int:
        """The next single move, after ``move`` was made.

        Raises:
            BotLost: the bot's expectations are not met, or it searches without end.
        """
        self._searches = 0
        try:
            return int(self.replan(move))  # type: ignore[no-untyped-call]
        except (AssertionError, AttributeError, IndexError, TypeError) as error:
            # What its unmet expectations look like from outside: it has no error of its own.
            raise BotLost(f"the bot gave up: {error or type(error).__name__}") from error

    def _process_instr(self, instr: Any) -> None:
        super()._process_instr(instr)  # type: ignore[no-untyped-call]
        if isinstance(instr, PutNextInstr):
            # Of all the drops that the bot plans, this one is the goal itself.
            self.stack[-4].reason = _PUT_DOWN_HERE

    def _shortest_path(self, *args: Any, **options: Any) -> Any:
        self._searches += 1
        if self._searches > SEARCHES_PER_MOVE:
            raise BotLost("the bot searches for a way without end")
        return super()._shortest_path(*args, **options)  # type: ignore[no-untyped-call]


def _is_needless_drop(goal: Any) -> bool:
    return isinstance(goal, DropSubgoal) and goal.reason != _PUT_DOWN_HERE


def _is_walk(goal: Any) -> bool:
    return isinstance(goal, GoNextToSubgoal) and not isinstance(goal.datum, ObjDesc)
