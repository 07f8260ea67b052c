"""A household small enough to follow by hand, in the form of ALFWorld's game files."""

import json
from pathlib import Path

LOCATIONS = ("loc_bar_start", "loc_bar_sink", "loc_bar_fridge", "loc_bar_table", "loc_bar_stove")
RECEPTACLES = {
    # Two counters at one place; the numbers in the names count down in the order of the ids.
    "Sink_bar_1_bar_SinkBasin": ("SinkBasinType", "loc_bar_sink"),
    "CounterTop_bar_1": ("CounterTopType", "loc_bar_sink"),
    "Fridge_bar_1": ("FridgeType", "loc_bar_fridge"),
    "Microwave_bar_1": ("MicrowaveType", "loc_bar_stove"),
    "CounterTop_bar_2": ("CounterTopType", "loc_bar_table"),
}
OBJECTS = {
    "Apple_bar_1": ("AppleType", "Fridge_bar_1"),
    "Apple_bar_2": ("AppleType", "CounterTop_bar_2"),
    "Knife_bar_1": ("KnifeType", "CounterTop_bar_2"),
    "DeskLamp_bar_1": ("DeskLampType", "CounterTop_bar_2"),
    "Bowl_bar_1": ("BowlType", "CounterTop_bar_1"),
}
ABLE = {
    "pickupable": ("Apple_bar_1", "Apple_bar_2", "Knife_bar_1", "Bowl_bar_1"),
    "openable": ("Fridge_bar_1", "Microwave_bar_1"),
    "cleanable": ("Apple_bar_1", "Apple_bar_2", "Knife_bar_1"),
    "heatable": ("Apple_bar_1", "Apple_bar_2"),
    "coolable": ("Apple_bar_1", "Apple_bar_2"),
    "sliceable": ("Apple_bar_1", "Apple_bar_2"),
    "toggleable": ("DeskLamp_bar_1",),
    "isReceptacleObject": ("Bowl_bar_1",),
}
HOT_APPLE = """(and (exists (?r - receptacle) (exists (?o - object) (and
    (heatable ?o) (objectType ?o AppleType) (receptacleType ?r FridgeType)
    (isHot ?o) (inReceptacle ?o ?r)))))"""
TWO_APPLES = """(and (exists (?r - receptacle) (exists (?o1 - object) (and
    (objectType ?o1 AppleType) (receptacleType ?r FridgeType) (inReceptacle ?o1 ?r)
    (exists (?o2 - object) (and (not (= ?o1 ?o2))
        (objectType ?o2 AppleType) (receptacleType ?r FridgeType) (inReceptacle ?o2 ?r)))))))"""
BOWL_IN_LIGHT = """(and (exists (?l - object ?r - receptacle ?a - agent ?p - location) (and
    (objectType ?l DeskLampType) (toggleable ?l) (isToggled ?l) (receptacleAtLocation ?r ?p)
    (atLocation ?a ?p) (inReceptacle ?l ?r)))
    (exists (?o - object ?a - agent) (and (objectType ?o BowlType) (holds ?a ?o))))"""
ALL_CLOSED = """(and (exists (?r - receptacle) (exists (?o - object) (and
    (inReceptacle ?o ?r) (objectType ?o KnifeType) (receptacleType ?r FridgeType))))
    (forall (?re - receptacle) (not (opened ?re))))"""


def problem(goal: str = HOT_APPLE) -> str:
    """The PDDL problem of the household; Fridge_bar_1 takes apples and knives, counters all."""
    facts = ["(= (total-cost) 0)", "(atLocation agent1 loc_bar_start)"]
    for thing, (kind, place) in RECEPTACLES.items():
        facts += [f"(receptacleType {thing} {kind})", f"(receptacleAtLocation {thing} {place})"]
    for thing, (kind, inside) in OBJECTS.items():
        facts += [f"(objectType {thing} {kind})", f"(inReceptacle {thing} {inside})"]
        facts.append(f"(objectAtLocation {thing} {RECEPTACLES[inside][1]})")
    facts += [f"({able} {thing})" for able, things in ABLE.items() for thing in things]
    kinds = sorted({kind for kind, _ in OBJECTS.values()})
    facts += [f"(canContain CounterTopType {kind})" for kind in kinds]
    facts += [
        f"(canContain {r} {k}) ; fits" for r in ("FridgeType",) for k in ("AppleType", "KnifeType")
    ]
    objects = f"agent1 - agent {' '.join(LOCATIONS)} - location "
    objects += f"{' '.join(RECEPTACLES)} - receptacle {' '.join(OBJECTS)} - object"
    return (
        f"(define (problem p)\n(:domain alfred)\n(:objects {objects})\n"
        f"(:init\n{chr(10).join(facts)}\n)\n(:goal {goal}))\n"
    )


def write_game(
    tree: Path, task_id: str, goal: str = HOT_APPLE, task: str = "do it", **changed: object
) -> None:
    """Put a game into a tree; it brings no rules, so it is played by ours."""
    game = {
        "grammar": f'grammar :: """{{"task": [{{"rhs": "Your task is to: {task}."}}]}}"""',
        "pddl_problem": problem(goal),
        "solvable": True,
        **changed,
    }
    file = tree / task_id / "game.tw-pddl"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(game), encoding="utf-8")
