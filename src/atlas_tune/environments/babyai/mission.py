"""What is left of a mission, and the words for it."""

from __future__ import annotations

from typing import Any

from minigrid.envs.babyai.core.verifier import (
    AndInstr,
    BeforeInstr,
    OpenInstr,
    PutNextInstr,
    SeqInstr,
)


def remaining(instruction: Any) -> list[Any]:
    """The single instructions that are still to be done, in the order in which they must be."""
    if not isinstance(instruction, SeqInstr):
        return [instruction]
    progress: Any = instruction
    a, b = progress.instr_a, progress.instr_b
    done_a, done_b = progress.a_done == "success", progress.b_done == "success"
    if isinstance(instruction, AndInstr):
        return ([] if done_a else [a]) + ([] if done_b else [b])
    if isinstance(instruction, BeforeInstr):
        return remaining(b) if done_a else [*remaining(a), *remaining(b)]
    return remaining(a) if done_b else [*remaining(b), *remaining(a)]


def target(instruction: Any, carrying: Any) -> Any:
    """The description of what an instruction needs first: of two things, the one not in hand."""
    if isinstance(instruction, PutNextInstr):
        held = any(carrying is thing for thing in instruction.desc_move.obj_set)
        return instruction.desc_fixed if held else instruction.desc_move
    return instruction.desc


def is_target(thing: Any, instructions: list[Any]) -> bool:
    """Whether a thing of the world is named in one of the instructions."""
    return any(
        thing is named
        for instruction in instructions
        for description in _descriptions(instruction)
        for named in description.obj_set
    )


def is_to_open(thing: Any, instructions: list[Any]) -> bool:
    """Whether a door is one that the mission wants opened, and not only passed."""
    return is_target(thing, [i for i in instructions if isinstance(i, OpenInstr)])


def words(description: Any) -> str:
    """A description in words: "the red ball", "a door"; its place is left out."""
    name = " ".join(filter(None, (description.color, description.type or "object")))
    if len(description.obj_set) == 1:
        return f"the {name}"
    return f"an {name}" if name == "object" else f"a {name}"


def _descriptions(instruction: Any) -> list[Any]:
    if isinstance(instruction, PutNextInstr):
        return [instruction.desc_move, instruction.desc_fixed]
    return [instruction.desc]
