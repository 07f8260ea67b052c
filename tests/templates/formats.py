"""The chat formats whose masks are proved: our templates, their special tokens, what they can hold.

``wire`` writes a step as the format's documentation says, without Jinja: it is what a mask is held
against. Sources: OpenAI's ChatML page; the prompt formats in the model cards of Llama 3 and 3.1,
Qwen2.5, Qwen3, Gemma, Phi-3 and Phi-4; mistral-common's page on tokenizer v3.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from atlas_tune.trajectory import Step

_WORDS = "Thought: Action: get_weather find_hotel city name arguments parameters tool_call user "


@dataclass(frozen=True)
class Format:
    """A chat format. ``end`` ends a turn; ``behind`` is what the template writes after it."""

    name: str
    special: tuple[str, ...]
    end: str
    wire: Callable[[Step], str]
    behind: str = "\n"
    bos: str | None = None
    eos: str | None = None
    """The tokenizer's own end token where it is not the end of a turn."""
    system: bool = True
    tools: bool = False
    parallel: bool = True
    """Two calls in one turn."""
    words_beside_calls: bool = False
    thinks: bool = False
    eats_space: bool = False
    """Its special tokens swallow the white space behind them."""

    def text(self) -> str:
        """The template."""
        return Path(__file__).with_name(f"{self.name}.jinja").read_text(encoding="utf-8")


def _object(call, key: str) -> str:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return f'{{"name": "{call.function_name}", "{key}": {arguments}'


def _plain(end: str) -> Callable[[Step], str]:
    return lambda step: step.message + end


def _trimmed(end: str) -> Callable[[Step], str]:
    return lambda step: step.message.strip() + end


def _llama3_1(step: Step) -> str:
    if step.tool_calls:
        return _object(step.tool_calls[0], "parameters") + "}<|eot_id|>"
    return step.message.strip() + "<|eot_id|>"


def _hermes_calls(step: Step, parts: list[str]) -> str:
    calls = [f"<tool_call>\n{_object(c, 'arguments')}}}\n</tool_call>" for c in step.tool_calls]
    return "\n".join([*parts, *calls])


def _qwen2_5(step: Step) -> str:
    return _hermes_calls(step, [step.message] if step.message else []) + "<|im_end|>"


def _qwen3(step: Step) -> str:
    thought = (step.reasoning_content or "").strip("\n")
    said = [step.message.lstrip("\n")] if step.message else []
    return f"<think>\n{thought}\n</think>\n\n{_hermes_calls(step, said)}<|im_end|>"


def _mistral(step: Step) -> str:
    if not step.tool_calls:
        return f" {step.message}</s>"
    calls = [f'{_object(c, "arguments")}, "id": "{c.tool_call_id}"}}' for c in step.tool_calls]
    return f"[TOOL_CALLS] [{', '.join(calls)}]</s>"


_IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_LLAMA = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_V3 = ("[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]")
_V3 += ("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "<s>", "</s>")

FORMATS = (
    Format("chatml", _IM, "<|im_end|>", _plain("<|im_end|>")),
    Format("llama3", _LLAMA, "<|eot_id|>", _trimmed("<|eot_id|>"), "", _LLAMA[0]),
    Format("llama3_1", _LLAMA, "<|eot_id|>", _llama3_1, "", _LLAMA[0], tools=True, parallel=False),
    Format("qwen2_5", _IM, "<|im_end|>", _qwen2_5, tools=True, words_beside_calls=True),
    Format("qwen3", _IM, "<|im_end|>", _qwen3, tools=True, words_beside_calls=True, thinks=True),
    Format("mistral_v3", _V3, "</s>", _mistral, "", "<s>", tools=True),
    Format(
        "gemma",
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        "<end_of_turn>",
        _trimmed("<end_of_turn>"),
        bos="<bos>",
        eos="<eos>",
        system=False,
    ),
    Format(
        "phi3",
        ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "<|end|>",
        _plain("<|end|>"),
        eos="<|endoftext|>",
        eats_space=True,
    ),
    Format("phi4", (*_IM, "<|im_sep|>"), "<|im_end|>", _plain("<|im_end|>"), ""),
)


@cache
def tokenizer_for(form: Format, template: str | None = None) -> PreTrainedTokenizerFast:
    """A small byte-level tokenizer with the format's special tokens and template.

    Args:
        form: the format.
        template: another template in its place.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[
            AddedToken(t, special=True, normalized=False, rstrip=form.eats_space)
            for t in form.special
        ],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Line breaks that follow each other merge, as in real vocabularies: also over a turn's start.
    tokenizer.train_from_iterator([_WORDS * 3 + "\n\n" * 20], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=form.bos,
        eos_token=form.eos or form.end,
        chat_template=template or form.text(),
        clean_up_tokenization_spaces=False,
    )
