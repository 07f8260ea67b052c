"""What training needs of memory, estimated without loading a weight.

What the backward pass of a block needs is counted, not derived: one and two blocks of the very
architecture run over fake tensors, which have shapes and no contents, and the tensors that the
graph saves are added up. Everything else is arithmetic on the number of weights.

Shapes: N tokens that run at once, R supervised rows among them, V vocabulary, W width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atlas_tune.tune.chunks import Chunk, cut
from atlas_tune.tune.prefixes import Forest
from atlas_tune.tune.settings import LoraSettings, TuneSettings

_FLOAT32 = 4
_ADAM = 2 * _FLOAT32
"""Bytes of AdamW's two moments, per weight that is trained."""
_LOGIT_BYTES = {"bfloat16": 16, "float32": 12}
"""Per logit at the peak: itself, in float32, its log-probability, and the gradients of those."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Numbers of weights."""

    all: int
    trained: int

    @classmethod
    def of(cls, config: Any, lora: LoraSettings | None) -> Weights:
        """Those of a transformers configuration, with adapters where it is asked for."""
        import torch
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
            if lora is not None:
                from peft import LoraConfig, get_peft_model

                adapters = LoraConfig(
                    r=lora.rank, target_modules=lora.target_modules, task_type="CAUSAL_LM"
                )
                model = get_peft_model(model, adapters)
        sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
        return cls(sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained))


@dataclass(frozen=True, slots=True)
class Saved:
    """Bytes that one block saves for its backward pass."""

    fixed: int
    """Whatever the number of tokens, such as weights in half precision."""
    per_token: float

    @classmethod
    def of(cls, config: Any, precision: str) -> Saved:
        """Counted on fake tensors, with two blocks and with one, over two numbers of tokens."""
        few, many = 64, 192
        by_few, by_many = (
            _saved_bytes(config, 2, tokens, precision) - _saved_bytes(config, 1, tokens, precision)
            for tokens in (few, many)
        )
        per_token = (by_many - by_few) / (many - few)
        return cls(round(by_few - per_token * few), per_token)


def _saved_bytes(config: Any, blocks: int, tokens: int, precision: str) -> int:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AttentionInterface, AutoModelForCausalLM

    def causal(
        module: Any, query: Any, key: Any, value: Any, mask: Any, **_: Any
    ) -> tuple[torch.Tensor, None]:
        found = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=query.shape[1] != key.shape[1]
        )
        return found.transpose(1, 2), None

    # Over fake tensors transformers makes a mask, which it does without over real ones.
    AttentionInterface.register("atlas_tune_counted", causal)
    small = copy.deepcopy(config)
    text = small.get_text_config(decoder=True)
    text.num_hidden_layers, text.vocab_size = blocks, 16
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[-blocks:]
    small._attn_implementation = "atlas_tune_counted"
    small.pad_token_id = text.pad_token_id = None
    sizes: dict[int, int] = {}
    with FakeTensorMode():
        model: Any = AutoModelForCausalLM.from_config(small)  # type: ignore[no-untyped-call]
        own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                sizes[storage._cdata] = storage.nbytes()
            return tensor

        bf16 = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16")
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), bf16:
            model.train()(
                input_ids=torch.zeros((1, tokens), dtype=torch.long),
                use_cache=False,
                logits_to_keep=1,
            )
    return sum(sizes.values())


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes at the peak of an optimiser step, by what they are for."""

    weights: float
    gradients: float
    optimiser: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """All of them together."""
        return self.weights + self.gradients + self.optimiser + self.activations + self.logits


def memory_of(
    config: Any,
    weights: Weights,
    saved: Saved,
    settings: TuneSettings,
    *,
    tokens: int,
    logit_rows: int,
) -> Memory:
    """The peak of a step of which ``tokens`` tokens and ``logit_rows`` rows of logits run at once.

    Weights, gradients and the optimiser's moments are float32, as the trainer keeps them. With
    gradient checkpointing a block keeps its input alone, and one block at a time all that it
    saves.
    """
    text = config.get_text_config(decoder=True)
    layers = text.num_hidden_layers
    block = saved.fixed + saved.per_token * tokens
    inputs = _FLOAT32 * text.hidden_size * tokens
    activations = block + layers * inputs if settings.gradient_checkpointing else layers * block
    logits = float(_LOGIT_BYTES[settings.precision]) * text.vocab_size * logit_rows
    return Memory(
        weights=float(_FLOAT32) * weights.all,
        gradients=float(_FLOAT32) * weights.trained,
        optimiser=float(_ADAM) * weights.trained,
        activations=activations,
        logits=logits,
    )


def most_at_once(forests: Sequence[Forest], most_tokens: int) -> tuple[int, int]:
    """Over all steps, the most tokens whose activations are held at once, and logit rows.

    A chunk is held until those that run against its keys and values are done.
    """
    tokens = rows = 0
    for forest in forests:
        for chunk in cut(forest, most_tokens):
            held, predicted = _held(forest, chunk)
            tokens, rows = max(tokens, held), max(rows, predicted)
    return tokens, rows


def _held(forest: Forest, chunk: Chunk) -> tuple[int, int]:
    tokens = sum(len(forest[node].tokens) for node in chunk.nodes)
    rows = sum(len({target.offset for target in forest[node].targets}) for node in chunk.nodes)
    later = [_held(forest, one) for one in chunk.then]
    return (
        tokens + max((held for held, _ in later), default=0),
        max([rows, *(predicted for _, predicted in later)]),
    )
