"""From a trajectory and a selection to token ids and a verified loss mask.

The spans of the selected steps are found by prefix difference: a step is what the chat template's
text has with the step's message and does not have before it (section 3 of the paper gives the
objective; how spans are found it leaves open). This needs the *extension property*: the prompt of
each turn is a prefix of the next one's. Templates that drop earlier thoughts lack it; then each
selected step becomes a row of its own, with the prompt that the model would really see.

Every mask is verified by decoding: the supervised ids must give back exactly the step's text and
its end-of-turn token, nothing more and nothing less.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from atlas_tune.agents.chat_template import render_text
from atlas_tune.errors import AtlasError
from atlas_tune.trajectory import Selection, Trajectory
from atlas_tune.trajectory.messages import Message, to_messages
from atlas_tune.tune.mask_check import MaskError, verify
from atlas_tune.tune.rows import Row, Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Turn:
    """Character range of a step in a text: from the end of its prompt to the end of its turn."""

    step_id: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class WrittenRow:
    """A row beside the text that it was made of, for those who ask what a token stands for."""

    row: Row
    text: str
    """The whole text, the tail that the row leaves out included."""
    starts: tuple[int, ...]
    """The character at which each token of the whole text begins."""
    turns: tuple[Turn, ...]
    """One for each span of the row."""


def render_rows(
    tokenizer: PreTrainedTokenizerBase,
    trajectory: Trajectory,
    selection: Selection,
    *,
    tail_cut: bool = True,
) -> list[Row]:
    """The training rows of a trajectory: one, or one per selected step (see the module's text).

    Args:
        tokenizer: of the model that is trained, with its chat template.
        trajectory: the run.
        selection: its steps that carry loss, and their weights.
        tail_cut: end a row after its last supervised token.

    Raises:
        MaskError: the selection is empty, the template refuses the trajectory, or the mask does not
            decode to the steps' text.
        AtlasError: the tokenizer has no chat template.
    """
    return [
        written.row for written in write_rows(tokenizer, trajectory, selection, tail_cut=tail_cut)
    ]


def write_rows(
    tokenizer: PreTrainedTokenizerBase,
    trajectory: Trajectory,
    selection: Selection,
    *,
    tail_cut: bool = True,
) -> list[WrittenRow]:
    """The rows of :func:`render_rows`, each with its text and where its tokens stand in it.

    Raises:
        AtlasError: as :func:`render_rows`.
    """
    if not selection.step_ids:
        raise MaskError(
            f"Trajectory {trajectory.trajectory_id} has no selected step, so no token of it would "
            "be trained: leave it out of the selection, or select a step."
        )
    rendered = to_messages(trajectory)
    wanted = set(selection.step_ids)
    text_of = partial(_text, tokenizer, trajectory, tools=rendered.tools)
    whole = text_of(rendered.messages, generation_prompt=False)
    closing = ""
    if tokenizer.eos_token and whole.endswith(tokenizer.eos_token):
        closing = _closing(whole, text_of(rendered.messages, generation_prompt=True), tokenizer)
    turns: list[Turn] = []
    texts: list[str] = []
    extends = True
    for index, step_id in enumerate(rendered.step_ids):
        if step_id not in wanted:
            continue
        before = rendered.messages[:index]
        prompt = text_of(before, generation_prompt=True)
        after = text_of(rendered.messages[: index + 1], generation_prompt=False)
        if not after.startswith(prompt):
            raise MaskError(
                f"Trajectory {trajectory.trajectory_id}, step {step_id}: the chat template of "
                f"{tokenizer.name_or_path} writes the prompt differently once the answer is there, "
                "so the answer's tokens cannot be told."
            )
        turn_text = after.removesuffix(closing)
        turns.append(Turn(step_id, len(prompt), len(turn_text)))
        texts.append(after)
        extends = extends and whole.startswith(turn_text)
    if len(turns) != len(wanted):
        raise MaskError(
            f"Trajectory {trajectory.trajectory_id}: the selection names a step that is not one "
            f"of the agent's own; selected {sorted(wanted)}."
        )
    row_of = partial(_row, tokenizer, trajectory, weights=selection.weight_of, tail_cut=tail_cut)
    if extends:
        return [row_of(whole, turns)]
    return [row_of(text, [turn]) for text, turn in zip(texts, turns, strict=True)]


def rewriting_notice(rows: Iterable[Row]) -> str | None:
    """One sentence on what a template that rewrites the past costs; None where none does.

    The cost is told against a template that keeps it: one row a trajectory, as long as the longest
    of its rows. A trainer that computes common beginnings once pays less than that.

    Args:
        rows: of one trajectory or of many, those of one trajectory together or not.
    """
    lengths: dict[str, list[int]] = {}
    for row in rows:
        lengths.setdefault(row.trajectory_id, []).append(len(row.input_ids))
    split = [own for own in lengths.values() if len(own) > 1]
    if not split:
        return None
    tokens, kept = sum(map(sum, split)), sum(map(max, split))
    return (
        f"The chat template rewrites earlier turns, so in {len(split)} of {len(lengths)} "
        f"trajectories each selected step is a row of its own: {sum(map(len, split))} rows of "
        f"{tokens:,} tokens together, {tokens / kept:.1f} times the {kept:,} of one row for each."
    )


def _text(
    tokenizer: PreTrainedTokenizerBase,
    trajectory: Trajectory,
    messages: Sequence[Message],
    *,
    generation_prompt: bool,
    tools: Sequence[dict[str, Any]] | None,
) -> str:
    """The text of messages of a trajectory; a template's refusal names the trajectory."""
    try:
        return render_text(tokenizer, messages, generation_prompt=generation_prompt, tools=tools)
    except AtlasError as error:
        if not tokenizer.chat_template:
            raise
        raise MaskError(
            f"Trajectory {trajectory.trajectory_id}: {str(error).rstrip('.')}. Leave it out of the "
            "selection, bring its messages into the form that this template takes, or train a "
            "model whose template takes them as they are."
        ) from error


def _closing(whole: str, prompt: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """What ends a whole conversation but no turn, and is gone when anybody goes on: Phi-3 has it.

    Supervising it would teach a model to write on behind its own end of turn.
    """
    eos = str(tokenizer.eos_token)
    goes_on_without = prompt.startswith(whole.removesuffix(eos)) and not prompt.startswith(whole)
    return eos if goes_on_without else ""


def _row(
    tokenizer: PreTrainedTokenizerBase,
    trajectory: Trajectory,
    text: str,
    turns: Sequence[Turn],
    *,
    weights: Mapping[int, float],
    tail_cut: bool,
) -> WrittenRow:
    ids, starts = tokenise(tokenizer, text, [turn.start for turn in turns])
    special = _special_tokens(tokenizer)
    spans = []
    for turn in turns:
        start = bisect.bisect_left(starts, turn.start)
        stop = bisect.bisect_left(starts, turn.end)
        end = _end_of_turn(special, ids, start, stop)
        if end is None:
            raise MaskError(
                f"Trajectory {trajectory.trajectory_id}, step {turn.step_id}: the chat template of "
                f"{tokenizer.name_or_path} closes a turn without a special token, so a model "
                "trained on it would never stop."
            )
        span = Span(turn.step_id, start, end, weights.get(turn.step_id, 1.0))
        verify(tokenizer, trajectory, ids, span, text[turn.start : turn.end])
        spans.append(span)
    last = spans[-1].end if tail_cut else len(ids)
    row = Row(trajectory.trajectory_id, tuple(ids[:last]), tuple(spans), len(ids))
    return WrittenRow(row, text, tuple(starts), tuple(turns))


def tokenise(
    tokenizer: PreTrainedTokenizerBase, text: str, cuts: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Token ids of a text and the character at which each begins.

    A token never spans one of the ``cuts``: an acting model is given the text up to there and
    continues with a fresh token, so training must see the same split. Where the tokenizer would
    merge across a cut, the text is tokenised in pieces.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    starts = [start for start, _ in encoded["offset_mapping"]]
    if set(cuts) <= set(starts):
        return list(encoded["input_ids"]), starts
    ids: list[int] = []
    starts = []
    edges = [0, *sorted(cuts), len(text)]
    for left, right in itertools.pairwise(edges):
        piece = tokenizer(text[left:right], add_special_tokens=False, return_offsets_mapping=True)
        ids += piece["input_ids"]
        starts += [left + start for start, _ in piece["offset_mapping"]]
    return ids, starts


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    added = {token for token, entry in tokenizer.added_tokens_decoder.items() if entry.special}
    return added | set(tokenizer.all_special_ids)


def _end_of_turn(special: set[int], ids: Sequence[int], start: int, stop: int) -> int | None:
    """One past the last special token in ``[start, stop)``: what ends the turn.

    What templates write after it (a line break) belongs to no turn: the model never writes it.
    """
    return next((i + 1 for i in range(stop - 1, start - 1, -1) if ids[i] in special), None)
