"""Models whose steps may be packed, and those that are refused, each with its reason."""

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from atlas_tune.tune.packable import why_not_packed
from tiny_model import tiny_llama

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def test_a_llama_is_packed_and_is_left_as_it_was():
    model = tiny_llama()
    model.train()
    frozen = model.model.embed_tokens.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert why_not_packed(model) is None
    assert model.training
    assert not frozen.requires_grad
    assert all(p.requires_grad for p in model.parameters() if p is not frozen)
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_an_architecture_that_is_not_proven_is_named():
    reason = why_not_packed(Gemma2ForCausalLM(Gemma2Config(**SHAPE)))
    assert (
        reason == "equal gradients are proven for llama, mistral, qwen2, qwen3, and this is gemma2"
    )


def test_layers_that_carry_a_state_along_are_refused():
    shape = {name: value for name, value in SHAPE.items() if name != "head_dim"}
    model = Lfm2ForCausalLM(Lfm2Config(**shape, layer_types=["conv", "full_attention"]))
    assert "of the kind conv carry a state from token to token" in why_not_packed(model)


def test_dropout_of_attention_is_refused():
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, attention_dropout=0.1))
    assert why_not_packed(model) == "its attention has dropout"


@pytest.mark.parametrize("layer", [0, 1])
def test_the_probe_sees_a_model_that_mixes_tokens_in_another_way(layer):
    model = tiny_llama()

    def mixed(module, args, output):
        return output + 0.3 * output.cumsum(1)

    model.model.layers[layer].mlp.register_forward_hook(mixed)
    assert "a probe of it gave gradients that differ by" in why_not_packed(model)
