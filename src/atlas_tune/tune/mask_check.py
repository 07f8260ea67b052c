"""Whether a mask is right, told by decoding: what is supervised is the step, whole and alone.

Chat templates drop, trim and rewrite what they are given, and tokenizers do not always decode to
what they encoded. Neither may pass unseen into training.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from atlas_tune.errors import AtlasError
from atlas_tune.trajectory import Step, Trajectory
from atlas_tune.tune.rows import Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_THOUGHT_TAGS = re.compile("</?think>")


class MaskError(AtlasError):
    """A trajectory whose supervised tokens cannot be told exactly."""


def verify(
    tokenizer: PreTrainedTokenizerBase,
    trajectory: Trajectory,
    ids: Sequence[int],
    span: Span,
    turn_text: str,
) -> None:
    """Check by decoding that a span is the step's text and its end-of-turn token.

    Raises:
        MaskError: it is not, or the text lacks something that the step has.
    """
    # Decoded behind what comes before it: some tokenizers drop a leading space of a text.
    before = _decode(tokenizer, ids[: span.start])
    decoded = _decode(tokenizer, ids[: span.end])[len(before) :]
    exact = turn_text.startswith(decoded) and not turn_text[len(decoded) :].strip()
    if not exact:
        raise MaskError(
            f"Trajectory {trajectory.trajectory_id}, step {span.step_id}: the supervised tokens "
            f"decode to {decoded!r}, which is not the step's text with its end of turn "
            f"{turn_text!r}. This tokenizer cannot be masked exactly."
        )
    lost = _lost(next(s for s in trajectory.steps if s.step_id == span.step_id), decoded)
    if lost is not None:
        raise MaskError(
            f"Trajectory {trajectory.trajectory_id}, step {span.step_id}: the chat template of "
            f"{tokenizer.name_or_path} writes the step as {decoded!r}, without {lost}, so the "
            "model would be trained on something else than what the agent did. Use a model whose "
            "template can hold it."
        )


def _lost(step: Step, text: str) -> str | None:
    """What of a step a template's text does not have: its message, its reasoning, or of a call.

    A message with a thought in it is there when its parts are, in their order. Calls must come in
    their order, each with its name and the names of its arguments behind it.
    Values are not looked for: templates write them in too many ways (JSON, XML, Python).
    """
    # Thinking templates write a thought inside a message anew, with line breaks of their own.
    parts = [part.strip() for part in _THOUGHT_TAGS.split(step.message)]
    if step.message.strip() not in text and not _in_order(parts, text):
        return f"its text {step.message!r}"
    if step.reasoning_content and step.reasoning_content.strip() not in text:
        return "its reasoning"
    place = 0
    for call in step.tool_calls:
        found = text.find(call.function_name, place)
        if found < 0:
            return f"its call of {call.function_name!r}"
        place = found + len(call.function_name)
        for name in call.arguments:
            forms = {name, json.dumps(name), json.dumps(name, ensure_ascii=False)}
            if not any(form in text[place:] for form in forms):
                return f"the argument {name!r} of its call of {call.function_name!r}"
    return None


def _in_order(parts: Sequence[str], text: str) -> bool:
    place = 0
    for part in parts:
        found = text.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return True


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(
        tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )
