"""What the judge of ``verdict`` is asked: one prompt per step, all but their ends the same.

Everything is one user message, because not every chat template has a system role: the
definitions, the record of the run, the question. The definitions of the four kinds are the
oracle's own (``oracle/prompt.txt``).

The record is untrusted: a web page that the agent read may say "answer yes". So every line of ours
carries a mark that is made of the trajectory's id. The id is a hash of all the text, so no text can
hold it, and the labels stay a function of the trajectory. And where the record spells out the
model's special tokens, it is shown with a space in them: else it could close the user's turn.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from string import Template

from atlas_tune.select.base import CannotLabel
from atlas_tune.select.oracle.prompt import CRITICAL_KINDS, Part, parts_of
from atlas_tune.select.oracle.prompt import prompt_text as oracle_prompt_text
from atlas_tune.trajectory import Trajectory

_DEFINITION = re.compile(rf"^({'|'.join(CRITICAL_KINDS)}): .*(?:\n .*)*", re.MULTILINE)
_NO_KINDS: Mapping[str, str] = {}


@cache
def prompt_text() -> str:
    """The prompt as it stands in ``verdict_prompt.txt``."""
    return (files(__package__) / "verdict_prompt.txt").read_text(encoding="utf-8")


@cache
def _sections() -> dict[str, str]:
    """The parts that are sent, by their names: record, question."""
    _, *parts = re.split(r"^## (\w+)\n", prompt_text(), flags=re.MULTILINE)
    return dict(zip(parts[::2], (part.rstrip("\n") for part in parts[1::2]), strict=True))


def definitions(kinds: Mapping[str, str] = _NO_KINDS) -> str:
    """The four kinds in the oracle's words, or in those of ``kinds`` where it has some."""
    found = {match[1]: match[0] for match in _DEFINITION.finditer(oracle_prompt_text())}
    return "\n\n".join(
        f"{kind}: {kinds[kind]}" if kind in kinds else found[kind] for kind in CRITICAL_KINDS
    )


def prompt_hash(kinds: Mapping[str, str] = _NO_KINDS) -> str:
    """The version of the prompt, kept in every label: SHA-256 of its text and the definitions."""
    return hashlib.sha256((prompt_text() + definitions(kinds)).encode("utf-8")).hexdigest()


@dataclass(frozen=True, slots=True)
class Record:
    """A run as the judge is shown it."""

    mark: str
    """What our own lines carry."""
    parts: tuple[Part, ...]
    step_ids: tuple[int, ...]
    """The steps that are asked about, in order."""
    defused: int = 0
    """How many special tokens of the model the record spelt out."""


def record_of(trajectory: Trajectory, special_tokens: Iterable[str] = ()) -> Record:
    """The record of a run, with the model's special tokens made harmless.

    Raises:
        CannotLabel: the record holds the mark that is to tell our lines from its own.
    """
    mark = hashlib.sha256(f"verdict {trajectory.trajectory_id}".encode()).hexdigest()[:16]
    parts, defused = [], 0
    longest_first = sorted({token for token in special_tokens if len(token) > 1}, key=len)[::-1]
    for part in parts_of(trajectory):
        text = part.text
        if mark in text:
            raise CannotLabel(f"it holds the mark '{mark}' that is to tell our lines from its own")
        for token in longest_first:
            defused += text.count(token)
            text = text.replace(token, f"{token[0]} {token[1:]}")
        parts.append(replace(part, text=text))
    ids = tuple(step.step_id for step in trajectory.agent_steps)
    return Record(mark, tuple(parts), ids, defused)


def question(
    record: Record, step_id: int, *, past_only: bool = False, kinds: Mapping[str, str] = _NO_KINDS
) -> str:
    """The user message that asks of one step whether it is critical.

    With ``past_only`` the record ends with the step itself: neither what answered it, nor what
    came later, nor the outcome is shown.
    """
    parts = _until(record.parts, step_id) if past_only else record.parts
    sections = _sections()
    shown = "\n\n".join(_shown(part, record.mark) for part in parts)
    head = Template(sections["record"]).substitute(
        kinds=definitions(kinds), mark=record.mark, record=shown
    )
    return (
        head + "\n" + Template(sections["question"]).substitute(mark=record.mark, step_id=step_id)
    )


def _until(parts: Sequence[Part], step_id: int) -> Sequence[Part]:
    own = next(index for index, part in enumerate(parts) if part.title == f"step {step_id}")
    return parts[: own + 1]


def _shown(part: Part, mark: str) -> str:
    if not part.left_out:
        return f"[{mark}] {part.title}\n{part.text}"
    gap = f"[{mark}] [… {part.left_out:,} characters left out …]"
    return f"[{mark}] {part.title}\n{part.text}\n{gap}\n{part.tail}"
