"""ALFWorld's actions: when each is admissible, what it changes, and how it is answered.

They are the actions of the PDDL domain that all games of ``json_2.1.1`` share. An action is one
line of text; :func:`find_deed` reads it and :func:`admissible` lists all that would work.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from atlas_tune.environments.alfworld.problem import Fact
from atlas_tune.environments.alfworld.telling import (
    around,
    inventory,
    object_told,
    receptacle_told,
)
from atlas_tune.environments.alfworld.world import World


@dataclass(frozen=True, slots=True)
class Deed:
    """An admissible action: the facts that it adds and removes, and its answer afterwards."""

    answer: Callable[[], str]
    add: tuple[Fact, ...] = ()
    remove: tuple[Fact, ...] = ()

    def do(self, world: World) -> str:
        """Change the world and return the answer."""
        world.change(self.add, self.remove)
        return self.answer()


_KNIVES = frozenset({"knifetype", "butterknifetype"})


def _go(world: World, receptacle: str) -> Deed | None:
    here, there = world.location, world.places.get(receptacle)
    # To go where one is changes nothing, and is no action of the game.
    if there is None or there == here:
        return None
    return Deed(
        lambda: receptacle_told(world, receptacle),
        add=(("atlocation", world.agent, there),),
        remove=(("atlocation", world.agent, here),),
    )


def _open(world: World, receptacle: str) -> Deed | None:
    if not _at(world, receptacle) or world.is_open(receptacle):
        return None
    name = world.names[receptacle]
    return Deed(
        lambda: f"You open the {name}. {receptacle_told(world, receptacle)}",
        add=(("opened", receptacle),),
    )


def _close(world: World, receptacle: str) -> Deed | None:
    if not _at(world, receptacle) or not world.has("opened", receptacle):
        return None
    name = world.names[receptacle]
    return Deed(lambda: f"You close the {name}.", remove=(("opened", receptacle),))


def _take(world: World, thing: str, receptacle: str) -> Deed | None:
    within_reach = _at(world, receptacle) and world.is_open(receptacle)
    there = world.has("inreceptacle", thing, receptacle)
    if not (within_reach and there and world.has("pickupable", thing)) or world.held:
        return None
    words = f"You pick up the {world.names[thing]} from the {world.names[receptacle]}."
    return Deed(
        lambda: words,
        add=(("holds", world.agent, thing),),
        remove=(
            ("inreceptacle", thing, receptacle),
            ("objectatlocation", thing, world.location),
        ),
    )


def _put(world: World, thing: str, receptacle: str) -> Deed | None:
    within_reach = _at(world, receptacle) and world.is_open(receptacle)
    if not within_reach or world.held != thing:
        return None
    fits = any(
        world.has("cancontain", whole, part)
        for whole in world.kinds(receptacle)
        for part in world.kinds(thing)
    )
    if not fits:
        return None
    words = f"You put the {world.names[thing]} in/on the {world.names[receptacle]}."
    return Deed(
        lambda: words,
        add=(
            ("inreceptacle", thing, receptacle),
            ("objectatlocation", thing, world.location),
        ),
        remove=(("holds", world.agent, thing),),
    )


def _treat(
    verb: str, able: str, place: str, add: str, remove: str | None = None
) -> Callable[[World, str, str], Deed | None]:
    """Cleaning, heating or cooling what is in the hand, at a receptacle of the type ``place``."""

    def treat(world: World, thing: str, receptacle: str) -> Deed | None:
        right_place = _at(world, receptacle) and world.has("receptacletype", receptacle, place)
        if not right_place or world.held != thing or not world.has(able, thing):
            return None
        words = f"You {verb} the {world.names[thing]} using the {world.names[receptacle]}."
        removed = ((remove, thing),) if remove else ()
        return Deed(lambda: words, add=((add, thing),), remove=removed)

    return treat


def _slice(world: World, thing: str, knife: str) -> Deed | None:
    here = world.has("objectatlocation", thing, world.location)
    has_knife = world.held == knife and _KNIVES & world.kinds(knife)
    if not (here and has_knife and world.has("sliceable", thing)):
        return None
    words = f"You sliced the {world.names[thing]} with the {world.names[knife]}."
    return Deed(lambda: words, add=(("issliced", thing),))


def _use(world: World, thing: str) -> Deed | None:
    here = any(world.has("inreceptacle", thing, r) for r in world.receptacles_here())
    if not here or not world.has("toggleable", thing):
        return None
    # It is only ever turned on: PDDL's isToggled, which the goals ask for, is never taken back.
    words = f"You turn on the {world.names[thing]}."
    return Deed(lambda: words, add=(("istoggled", thing),))


def _examine(world: World, thing: str) -> Deed | None:
    if thing in world.places:
        if not world.is_here(thing):
            return None
        return Deed(lambda: receptacle_told(world, thing))
    # The rules mean to let it be examined where it lies, too, but a stray comma there ("?l -
    # location, ?r") asks for a location of an unknown type, so the games have never allowed it.
    return Deed(lambda: object_told(world, thing)) if world.held == thing else None


def _look(world: World) -> Deed | None:
    return Deed(lambda: around(world))


def _inventory(world: World) -> Deed | None:
    return Deed(lambda: inventory(world))


def _at(world: World, receptacle: str) -> bool:
    return receptacle in world.places and world.is_here(receptacle)


_RULES: dict[str, Callable[..., Deed | None]] = {
    "go to {}": _go,
    "open {}": _open,
    "close {}": _close,
    "take {} from {}": _take,
    "put {} in/on {}": _put,
    "clean {} with {}": _treat("clean", "cleanable", "sinkbasintype", "isclean"),
    "heat {} with {}": _treat("heat", "heatable", "microwavetype", "ishot", "iscool"),
    "cool {} with {}": _treat("cool", "coolable", "fridgetype", "iscool", "ishot"),
    "slice {} with {}": _slice,
    "use {}": _use,
    "examine {}": _examine,
    "look": _look,
    "inventory": _inventory,
}
_NEW_WORDING = {"move {} to {}": "put {} in/on {}"}
"""What ALFWorld 0.4 calls an action, and what AgentGym and the recorded runs call it."""


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{\}", "(.+)"))


_PATTERNS = [(_pattern(template), rule) for template, rule in _RULES.items()]
_PATTERNS += [(_pattern(new), _RULES[old]) for new, old in _NEW_WORDING.items()]


def find_deed(world: World, action: str) -> Deed | None:
    """The deed that an action asks for; None where it is not admissible."""
    for pattern, rule in _PATTERNS:
        match = pattern.fullmatch(action)
        if match and all(name in world.things for name in match.groups()):
            return rule(world, *(world.things[name] for name in match.groups()))
    return None


def admissible(world: World) -> list[str]:
    """All admissible actions, sorted, in the recorded runs' wording."""
    return sorted(
        template.format(*(world.names[thing] for thing in things))
        for template, rule in _RULES.items()
        for things in _candidates(world, template)
        if rule(world, *things) is not None
    )


def _candidates(world: World, template: str) -> Iterator[tuple[str, ...]]:
    """Arguments with which a rule might be admissible: nothing else is within reach."""
    here = world.receptacles_here()
    lying = {o for _, o, place in world.facts_of("inreceptacle") if place in here}
    lying |= {o for _, o, place in world.facts_of("objectatlocation") if place == world.location}
    within_reach = sorted(lying | ({world.held} if world.held else set()))
    if template == "go to {}":
        yield from ((receptacle,) for receptacle in world.places)
    elif template == "slice {} with {}":
        yield from ((thing, knife) for thing in within_reach for knife in within_reach)
    elif template.count("{}") == 2:
        yield from ((thing, receptacle) for thing in within_reach for receptacle in here)
    elif template.count("{}") == 1:
        yield from ((thing,) for thing in (*here, *within_reach))
    else:
        yield ()
