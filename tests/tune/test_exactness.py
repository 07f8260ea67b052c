"""Every saving is exact: loss and all gradients equal plain training's, in float64 to 1e-9.

transformers' norms, rotary angles and eager attention compute in float32 inside a float64 model.
Here norms and angles are made float64 and attention is SDPA, so that the bound means something.
"""

import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from atlas_tune.tune.chunks import cut
from atlas_tune.tune.memory import most_at_once
from atlas_tune.tune.packed_loss import PackedLoss
from atlas_tune.tune.padded_loss import PaddedLoss
from atlas_tune.tune.prefixes import forest_of, rows_of, tokens_of
from atlas_tune.tune.rows import Row, Span

VOCABULARY = 97
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "llama-tied": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": True}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "qwen2-window": (
        Qwen2ForCausalLM,
        Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    ),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": None}),
    "mistral-window": (MistralForCausalLM, MistralConfig, {"sliding_window": 11}),
}


@contextmanager
def float64(model):
    """The model in float64, its norms and rotary angles too."""

    def norm(self, x):
        return self.weight * (
            x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        )

    def angles(self, x, position_ids):
        turned = position_ids[..., None].to(x.dtype) * self.inv_freq.to(x.dtype)
        both = torch.cat((turned, turned), dim=-1)
        return both.cos() * self.attention_scaling, both.sin() * self.attention_scaling

    changed = []
    module = sys.modules[type(model).__module__]
    for name, forward in (("RMSNorm", norm), ("RotaryEmbedding", angles)):
        for found in (c for n, c in vars(module).items() if n.endswith(name)):
            changed.append((found, found.forward))
            found.forward = forward
    try:
        yield model.double()
    finally:
        for found, forward in changed:
            found.forward = forward


def make(name, seed=0):
    model, config, changes = MODELS[name]
    torch.manual_seed(seed)
    return model(config(**{**SHAPE, **changes}))


def row(ids, *spans):
    return Row("t", tuple(ids), tuple(Span(i, *span) for i, span in enumerate(spans)), len(ids))


def some_rows():
    """Rows that share a long prefix, of which some share more, one that is alone, a twin."""
    draw = torch.Generator().manual_seed(1)

    def ids(count):
        return torch.randint(VOCABULARY, (count,), generator=draw).tolist()

    trunk = ids(20)
    branch = trunk + ids(18)
    rows = [row([*start, *ids(more)], (len(start) + 2, len(start) + 9)) for start, more in
            ((trunk, 17), (trunk, 25), (branch, 12), (branch, 30), ([], 21))]  # fmt: skip
    # Supervised inside the shared part too, and right where rows part.
    whole = [*branch, *ids(9)]
    return [*rows, rows[2], row(whole, (5, 8), (36, 41), (45, 47))]


def plain(model, rows):
    """Loss and gradients of full-logits training, one unpadded row at a time."""
    model.zero_grad()
    total = 0.0
    for one in rows:
        ids = torch.tensor([one.input_ids])
        log_p = model(input_ids=ids, use_cache=False).logits.log_softmax(-1)
        for span in one.spans:
            for at in range(span.start, span.end):
                total = total - span.weight * log_p[0, at - 1, one.input_ids[at]]
    total = total / 7.0
    total.backward()
    return total.item(), gradients(model)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def packed(model, rows, *, least_shared=16, most_tokens=10_000, **switches):
    model.zero_grad()
    way = PackedLoss(most_tokens, least_shared=least_shared, **switches)
    return float(way.backward(model, rows, 7.0)), gradients(model)


def padded(model, rows, **switches):
    model.zero_grad()
    return float(PaddedLoss(100, **switches).backward(model, rows, 7.0)), gradients(model)


def assert_equal(found, wanted):
    assert found[0] == pytest.approx(wanted[0], rel=1e-9)
    assert found[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        difference = (found[1][name] - gradient).norm() / gradient.norm().clamp_min(1e-12)
        assert difference < 1e-9, name


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
def test_every_saving_leaves_loss_and_gradients_as_they_are(name, checkpointing):
    rows = some_rows()
    with float64(make(name)) as model:
        wanted = plain(model, rows)
        if checkpointing:
            model.activation_checkpointing_enable()
            model.train()
        for switches in ({}, {"sparse_last_block": False}, {"supervised_rows": False}):
            assert_equal(packed(model, rows, least_shared=None, **switches), wanted)
            assert_equal(packed(model, rows, **switches), wanted)
        assert_equal(padded(model, rows), wanted)
        assert_equal(padded(model, rows, supervised_rows=False), wanted)
        # Chunks so small that shared prefixes, and prefixes of prefixes, are run by themselves.
        for most_tokens in (90, 1):
            assert_equal(packed(model, rows, most_tokens=most_tokens), wanted)


@pytest.mark.parametrize("name", ["llama", "qwen3", "mistral-window"])
def test_a_chunk_may_hold_no_supervised_row(name):
    """The usual case: nothing is supervised in the instruction that all rows begin with."""
    rows = [replace(one, spans=one.spans[-1:]) for one in some_rows() if one.spans[-1].start > 38]
    assert len(rows) > 2
    with float64(make(name)) as model:
        wanted = plain(model, rows)
        for switches in ({}, {"sparse_last_block": False}, {"supervised_rows": False}):
            assert_equal(packed(model, rows, **switches), wanted)
            assert_equal(packed(model, rows, most_tokens=30, **switches), wanted)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
def test_adapters_get_the_same_gradients(checkpointing):
    rows = some_rows()
    with float64(make("qwen3")) as base:
        model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear")).double()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at first, which would leave lora_A without a gradient
                torch.nn.init.normal_(parameter, std=0.1)
        wanted = plain(model, rows)
        if checkpointing:
            base.enable_input_require_grads()
            base.activation_checkpointing_enable()
            model.train()
        assert_equal(packed(model, rows), wanted)
        assert_equal(packed(model, rows, most_tokens=30), wanted)


def test_steps_can_be_weighted():
    rows = [
        replace(
            one,
            spans=tuple(replace(s, weight=0.25 * (i + j + 1)) for j, s in enumerate(one.spans)),
        )
        for i, one in enumerate(some_rows())
    ]
    with float64(make("llama")) as model:
        wanted = plain(model, rows)
        assert_equal(packed(model, rows), wanted)
        assert_equal(packed(model, rows, most_tokens=45), wanted)
        assert_equal(padded(model, rows), wanted)


def test_what_is_shared_is_computed_once():
    rows = some_rows()
    forest = forest_of(rows)
    alone = sum(len(one.input_ids) for one in rows)
    # The trunk is there six times, the branch four times. What the twin has behind the branch are
    # twelve tokens: too few to be worth a node.
    assert alone == 6 * 20 + 4 * 18 + 17 + 25 + 2 * 12 + 30 + 9 + 21
    assert tokens_of(forest) == 20 + 18 + 17 + 25 + 2 * 12 + 30 + 9 + 21
    assert tokens_of(forest_of(rows, least_shared=12)) == 20 + 18 + 17 + 25 + 12 + 30 + 9 + 21
    for most_tokens in (10_000, 60, 1):
        ran = [node for chunk in cut(forest, most_tokens) for node in nodes_of(chunk)]
        assert sorted(ran) == list(range(len(forest)))


def nodes_of(chunk):
    yield from chunk.nodes
    for later in chunk.then:
        yield from nodes_of(later)


@given(
    st.lists(st.lists(st.integers(0, 1), max_size=12), min_size=1, max_size=8), st.integers(1, 4)
)
@settings(max_examples=200)
def test_a_forest_gives_its_rows_back(texts, least_shared):
    rows = [row([7, *text]) for text in texts]
    forest = forest_of(rows, least_shared=least_shared)
    found = rows_of(forest)
    wanted = {one.input_ids for one in rows}
    assert set(found) <= wanted
    # A row that another one begins with ends inside the forest, not at a leaf.
    assert all(any(leaf[: len(one)] == one for leaf in found) for one in wanted)
    assert tokens_of(forest) <= sum(len(one.input_ids) for one in rows)


@given(
    st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=12), min_size=1, max_size=8),
    st.integers(1, 20),
)
@settings(max_examples=200)
def test_chunks_hold_every_node_once_behind_its_parents_and_within_the_budget(texts, most_tokens):
    forest = forest_of([row([7, *text]) for text in texts], least_shared=2)
    seen = []

    def walk(chunk, before):
        known = [*before, *chunk.nodes]
        for node in chunk.nodes:
            assert forest[node].parent is None or forest[node].parent in known
        tokens = sum(len(forest[node].tokens) for node in chunk.nodes)
        assert tokens <= most_tokens or len(chunk.nodes) == 1
        seen.extend(chunk.nodes)
        for later in chunk.then:
            walk(later, known)

    for chunk in cut(forest, most_tokens):
        walk(chunk, [])
    assert sorted(seen) == list(range(len(forest)))
    longest = max(node.start + len(node.tokens) for node in forest)
    held, _ = most_at_once([forest], most_tokens)
    assert held <= max(1.5 * most_tokens, longest + most_tokens / 2)
