"""What the agent reads, in ALFWorld's words.

They are the words of the grammar in each game's file, without the "You arrive at loc 12." before
what a place shows, which AgentGym and ReAct strip too.
"""

from __future__ import annotations

from collections.abc import Sequence

from atlas_tune.environments.alfworld.world import World

NOTHING_HAPPENS = "Nothing happens."
EMPTY_HANDED = "You are not carrying anything."
_ROOM = "You are in the middle of a room. Looking quickly around you, you see"


def listing(names: Sequence[str], article: str = "a ") -> str:
    """
    >>> listing(["bed 1", "desk 1", "desk 2"]), listing([])
    ('a bed 1, a desk 1, and a desk 2', 'nothing')
    """
    *first, last = [f"{article}{name}" for name in names] or ["nothing"]
    return ", and ".join([", ".join(first), last] if first else [last])


def opening(world: World, task: str) -> str:
    """The first observation: the room and the task."""
    return f"{_ROOM} {_named(world, sorted(world.places))}.\n{task}"


def around(world: World) -> str:
    """What looking around tells; in the middle of a room, nothing."""
    here = world.receptacles_here()
    if not here:
        return f"{_ROOM} nothing."
    # ALFWorld takes for the floor what left one receptacle of this place for another one here.
    floor = [
        thing
        for _, thing, place in sorted(world.facts_of("objectatlocation"))
        for receptacle in here
        if place == world.location and ("inreceptacle", thing, receptacle) in world.gone
    ]
    facing = listing([world.names[receptacle] for receptacle in here], article="")
    return f"You are facing the {facing}. Next to it, you see {_named(world, floor)}."


def receptacle_told(world: World, receptacle: str) -> str:
    """What a receptacle shows: closed, or what is in it."""
    name = world.names[receptacle]
    seen = _named(world, world.inside(receptacle))
    if not world.has("openable", receptacle):
        return f"On the {name}, you see {seen}."
    if not world.has("opened", receptacle):
        return f"The {name} is closed."
    return f"The {name} is open. In it, you see {seen}."


def object_told(world: World, thing: str) -> str:
    """What examining an object tells: the first of ALFWorld's sentences that fits."""
    name = world.names[thing]
    if world.has("isreceptacleobject", thing):
        inner = sorted(o for _, o, outer in world.facts_of("inreceptacleobject") if outer == thing)
        return f"This is a normal {name}. In it, you see {_named(world, inner)}."
    for facts, words in _STATES:
        if all(world.has(fact, thing) for fact in facts):
            return f"This is a {words} {name}."
    if world.has("toggleable", thing) and world.has("istoggled", thing):
        return f"This {name} is on."
    if world.has("issliced", thing):
        return f"This is a sliced {name}."
    return f"There's nothing special about {name}."


_STATES = (
    (("isclean", "ishot", "issliced"), "hot and clean sliced"),
    (("isclean", "iscool", "issliced"), "cool and clean sliced"),
    (("isclean", "issliced"), "clean sliced"),
    (("ishot", "issliced"), "hot sliced"),
    (("iscool", "issliced"), "cool sliced"),
    (("isclean", "ishot"), "hot and clean"),
    (("isclean", "iscool"), "cool and clean"),
    (("ishot",), "hot"),
    (("isclean",), "clean"),
    (("iscool",), "cold"),
)
"""The order is ALFWorld's."""


def inventory(world: World) -> str:
    """What the agent holds."""
    held = world.held
    return f"You are carrying: {listing([world.names[held]])}." if held else EMPTY_HANDED


def _named(world: World, things: Sequence[str]) -> str:
    return listing([world.names[thing] for thing in things])
