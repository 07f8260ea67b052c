"""What a model reads to give the likelihood of every step, planned without the model.

A passage is one sequence of tokens: a whole trajectory where the chat template has the extension
property, else the prompt of one step and the step. The tokens and the spans are those of training
(:mod:`atlas_tune.tune.render`), so a step's surprisal is the loss it would carry.

A passage is read in chunks, and what it shares with the one read before is not read again. Where
chunks end depends on the passage alone, and only whole chunks are kept. So every number comes of
the same arithmetic whatever was read before, down to the last bit.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from atlas_tune.agents.react import parse_turn
from atlas_tune.errors import AtlasError
from atlas_tune.select.base import CannotLabel
from atlas_tune.trajectory import Selection, Step, Trajectory
from atlas_tune.tune.render import Turn, WrittenRow, write_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK_TOKENS = 512
"""Tokens read at once: enough to keep a processor busy, few enough for their logits to fit."""


@dataclass(frozen=True, slots=True)
class StepTokens:
    """The supervised tokens ``[start, end)`` of one agent step; the last one ends the turn."""

    step_id: int
    start: int
    end: int
    is_action: tuple[bool, ...]
    """Per token, whether it belongs to the action. The token that ends the turn never does."""


@dataclass(frozen=True, slots=True)
class Passage:
    """One sequence of tokens and the steps in it; its last token is predicted, never read."""

    ids: tuple[int, ...]
    steps: tuple[StepTokens, ...]
    ends: tuple[int, ...]
    """Where the chunks end that are read one after the other; the last is ``len(ids) - 1``."""

    @property
    def length(self) -> int:
        """How many tokens the model reads."""
        return len(self.ids) - 1


def passages_of(
    tokenizer: PreTrainedTokenizerBase,
    trajectory: Trajectory,
    told: str = "",
    chunk_tokens: int = CHUNK_TOKENS,
) -> list[Passage]:
    """The passages that hold every agent step of a trajectory, in order.

    Args:
        tokenizer: with a chat template.
        trajectory: whose steps are wanted.
        told: words that the opening gets besides, see :func:`tell`.
        chunk_tokens: the longest chunk.

    Raises:
        CannotLabel: the steps' tokens cannot be told exactly under this template.
        AtlasError: the tokenizer has no chat template, so no trajectory can be read.
    """
    own = trajectory.agent_steps
    every = Selection(trajectory.trajectory_id, tuple(step.step_id for step in own), "every step")
    shown = tell(trajectory, told) if told else trajectory
    try:
        written = write_rows(tokenizer, shown, every)
    except AtlasError as error:
        if not tokenizer.chat_template:
            raise
        raise CannotLabel(str(error)) from error
    steps = {step.step_id: step for step in own}
    passages = []
    for one in written:
        if one.row.spans[0].start == 0:
            raise CannotLabel(
                f"step {one.row.spans[0].step_id} is the first thing that the chat template of "
                f"{tokenizer.name_or_path} writes, and a first token has no likelihood"
            )
        found = tuple(
            StepTokens(span.step_id, span.start, span.end, _actions(one, place, steps))
            for place, span in enumerate(one.row.spans)
        )
        ends = _chunk_ends(len(one.row.input_ids) - 1, _breaks(one, trajectory), chunk_tokens)
        passages.append(Passage(one.row.input_ids, found, ends))
    return passages


def tell(trajectory: Trajectory, told: str) -> Trajectory:
    """The trajectory with words appended to the message that opens it; its id stays as it was.

    That is the first message of the user before the first step, the system's where the user says
    nothing. All that follows stays as it is.

    Raises:
        CannotLabel: the trajectory begins with a step, so there is nothing to append to.
    """
    opening = []
    for step in trajectory.steps:
        if step.source == "agent" and not step.is_copied_context:
            break
        opening.append(step)
    for source in ("user", "system"):
        for step in opening:
            if step.source == source:
                longer = replace(step, message=f"{step.message.rstrip()} {told}".lstrip())
                return replace(
                    trajectory, steps=tuple(longer if s is step else s for s in trajectory.steps)
                )
    raise CannotLabel("no message stands before its first step, so the agent can be told nothing")


def kept_tokens(last: Passage | None, passage: Passage) -> int:
    """How many tokens of a passage need no reading, because the last one began with them.

    Whole chunks alone, and never a position that predicts a token of a step.
    """
    kept = 0
    if last is not None:
        first_row = passage.steps[0].start - 1
        for had, end in zip(last.ends, passage.ends, strict=False):
            if had != end or end > first_row or last.ids[kept:end] != passage.ids[kept:end]:
                break
            kept = end
    return kept


def tokens_read(passages: Iterable[Passage]) -> int:
    """How many tokens a model reads that is given these passages one after the other."""
    read, last = 0, None
    for passage in passages:
        read += passage.length - kept_tokens(last, passage)
        last = passage
    return read


def _chunk_ends(length: int, breaks: Sequence[int], chunk_tokens: int) -> tuple[int, ...]:
    """
    >>> _chunk_ends(10, [3], 4)
    (3, 7, 10)
    >>> _chunk_ends(8, [], 4)
    (4, 8)
    """
    ends: list[int] = []
    at = 0
    for stop in [*(place for place in breaks if 0 < place < length), length]:
        while at < stop:
            at = min(at + chunk_tokens, stop)
            ends.append(at)
    return tuple(ends)


def _breaks(written: WrittenRow, trajectory: Trajectory) -> list[int]:
    """The tokens at which the opening's messages end, up to the first one of the user.

    Up to there the runs of an environment are mostly the same, and so is a run with its end told
    and without: a chunk that ends there can be kept.
    """
    breaks: list[int] = []
    at = 0
    for step in trajectory.steps:
        words = step.message.strip()
        place = written.text.find(words, at) if words else -1
        if step.source == "agent" or place < 0:
            break
        at = place + len(words)
        breaks.append(bisect.bisect_left(written.starts, at))
        if step.source == "user":
            break
    return breaks


def _actions(written: WrittenRow, place: int, steps: dict[int, Step]) -> tuple[bool, ...]:
    span, turn = written.row.spans[place], written.turns[place]
    ranges = _action_ranges(steps[span.step_id], written.text, turn)
    starts = written.starts
    is_action = []
    for index in range(span.start, span.end - 1):  # the last one ends the turn
        begin = starts[index]
        end = starts[index + 1]
        is_action.append(
            any(begin < right and (begin >= left or end > left) for left, right in ranges)
        )
    return (*is_action, False)


def _action_ranges(step: Step, text: str, turn: Turn) -> list[tuple[int, int]]:
    """The characters of a turn that are its action: the line after ``Action:``, and its calls."""
    reasoning, message = (step.reasoning_content or "").strip(), step.message.strip()
    thought = text.find(reasoning, turn.start, turn.end) + len(reasoning)
    begin = text.find(message, max(thought, turn.start), turn.end)
    if begin < 0:  # reasoning that a template writes behind the message
        begin = text.find(message, turn.start, turn.end)
    ranges = []
    action = parse_turn(step.message).action
    if action is not None:
        left = begin + message.index(action, message.index("Action:") + len("Action:"))
        ranges.append((left, left + len(action)))
    if step.tool_calls:
        # Templates write calls behind the text; the few that do not have them before it.
        behind = begin + len(message)
        named = step.tool_calls[0].function_name in text[behind : turn.end]
        ranges.append((behind if named else turn.start, turn.end))
    return ranges
