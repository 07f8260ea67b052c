"""One way to turn messages into text, for training, scoring and acting alike.

A model that is trained on one rendering and asked in another loses what it learnt, so every room
renders here. Values that a template would take from the clock are pinned: Llama-3.1's template
writes today's date into the system message unless it is given one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from atlas_tune.errors import AtlasError
from atlas_tune.trajectory.messages import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PINNED: dict[str, Any] = {"date_string": "26 Jul 2024"}
"""Template variables with a fixed value; the date is the one in Llama-3.1's own model card."""

_NOW = {"%d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24",
        "%a": "Fri", "%A": "Friday", "%H": "12", "%M": "00", "%S": "00"}  # fmt: skip
_PINNED_CLOCK = (
    "{%- macro strftime_now(format) %}{{ format"
    + "".join(f"|replace('{sign}', '{value}')" for sign, value in _NOW.items())
    + " }}{%- endmacro +%}"
)
"""The same date for templates that ask the clock themselves; ``+`` keeps a line break behind it."""


def _pinned(template: Any) -> str | None:
    """The template with its clock stopped; None leaves the tokenizer's own as it is."""
    asks = isinstance(template, str) and "strftime_now" in template
    return _PINNED_CLOCK + template if asks else None


def render_text(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    generation_prompt: bool,
    tools: Sequence[dict[str, Any]] | None = None,
) -> str:
    """The text of a conversation under the model's own chat template.

    Args:
        tokenizer: carries the template.
        messages: chat messages, see :mod:`atlas_tune.trajectory.messages`.
        generation_prompt: end with the header that asks the assistant to speak.
        tools: definitions of the tools that the agent can call, if it has any.

    Raises:
        AtlasError: the tokenizer has no chat template, or the template refuses the messages.
    """
    if not tokenizer.chat_template:
        raise AtlasError(
            f"The tokenizer of {tokenizer.name_or_path} has no chat template, so a conversation "
            "cannot be rendered for it: use an instruct model, or set tokenizer.chat_template."
        )
    try:
        text = tokenizer.apply_chat_template(
            list(messages),
            tools=list(tools) if tools else None,
            tokenize=False,
            add_generation_prompt=generation_prompt,
            chat_template=_pinned(tokenizer.chat_template),
            **PINNED,
        )
    except Exception as error:  # Templates raise jinja2 errors of many kinds.
        raise AtlasError(
            f"The chat template of {tokenizer.name_or_path} refuses these messages: {error}"
        ) from error
    return str(text)
