"""What a training costs, told without weights, against what real tensors take."""

import pytest
import torch
from transformers import AutoConfig, Gemma2Config

from atlas_tune.tune.cost import SHAPES, cost_of
from atlas_tune.tune.memory import Saved, Weights, memory_of, most_at_once
from atlas_tune.tune.prefixes import forest_of
from atlas_tune.tune.rows import Row, Span
from atlas_tune.tune.settings import LoraSettings, Savings, TuneSettings
from tiny_model import tiny_llama


def row(ids, start, end, more=0):
    return Row("t", tuple(ids), (Span(1, start, end),), len(ids) + more)


TRUNK = range(30)
ROWS = [row([*TRUNK, 40 + i, 50, 51, 52], 31, 34, more=6) for i in range(4)]


def saved_for_real(blocks, tokens, precision):
    """Bytes that the graph of a real model holds, besides the weights."""
    model = tiny_llama(num_hidden_layers=blocks, vocab_size=16, pad_token_id=None)
    model.train()
    own = {parameter.data_ptr() for parameter in model.parameters()}
    sizes = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    bf16 = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), bf16:
        out = model(torch.zeros((1, tokens), dtype=torch.long), logits_to_keep=1, use_cache=False)
    assert out.logits.requires_grad  # the graph is alive until here
    return sum(sizes.values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_a_block_saves_is_what_a_real_one_saves(precision):
    saved = Saved.of(tiny_llama().config, precision)
    for tokens in (50, 130):
        real = saved_for_real(4, tokens, precision) - saved_for_real(3, tokens, precision)
        assert saved.fixed + saved.per_token * tokens == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize(
    ("name", "billions"),
    [("llama-3.1-8b", 8.03), ("qwen2.5-7b", 7.62), ("qwen3-8b", 8.19), ("mistral-7b", 7.25)],
)
def test_the_shapes_have_the_weights_that_their_makers_tell(name, billions):
    config = AutoConfig.for_model(**SHAPES[name], tie_word_embeddings=False)
    assert Weights.of(config, None).all / 1e9 == pytest.approx(billions, abs=0.005)


def test_adapters_are_counted_apart():
    model = tiny_llama()
    weights = Weights.of(model.config, LoraSettings(rank=2))
    # Rank times inputs and outputs of each linear layer of two blocks.
    per_block = 2 * ((32 + 32) + (32 + 16) * 2 + (32 + 32) + (32 + 64) * 2 + (64 + 32))
    assert weights.trained == 2 * per_block
    assert weights.all == sum(p.numel() for p in model.parameters()) + weights.trained


def test_memory_by_hand():
    config = tiny_llama().config
    weights, saved = Weights(1000, 10), Saved(fixed=7, per_token=3.0)
    plain = TuneSettings(precision="float32")
    found = memory_of(config, weights, saved, plain, tokens=100, logit_rows=5)
    assert (found.weights, found.gradients, found.optimiser) == (4000, 40, 80)
    assert found.activations == 2 * (7 + 300)
    assert found.logits == 12 * config.vocab_size * 5
    assert found.total == 4000 + 40 + 80 + 614 + found.logits
    again = plain.model_copy(update={"gradient_checkpointing": True})
    checkpointed = memory_of(config, weights, saved, again, tokens=100, logit_rows=5)
    assert checkpointed.activations == 307 + 2 * 4 * 32 * 100


def test_a_trunk_is_held_while_its_branches_run():
    forest = forest_of(ROWS)
    # All in one chunk: the trunk and four branches of four tokens; each has three supervised.
    assert most_at_once([forest], 1000) == (30 + 16, 12)
    # The branches get half of the budget, since the trunk leaves nothing of it.
    assert most_at_once([forest], 8) == (30 + 4, 3)


def test_the_cost_of_an_epoch():
    settings = TuneSettings(rows_per_step=4, precision="float32")
    found = cost_of(tiny_llama().config, ROWS, settings)
    assert (found.steps, found.tokens, found.supervised) == (1, 4 * 40, 12)
    assert found.computed == 30 + 16
    names = [way.name for way in found.ways]
    assert names[:2] + names[-1:] == ["one row per step", "plain", "shared prefixes"]
    flops = [way.flops.total for way in found.ways[1:]]
    assert flops == sorted(flops, reverse=True)
    plain, ours = found.ways[1].memory, found.ways[-1].memory
    assert plain.logits == 12 * tiny_llama().config.vocab_size * 160
    assert ours.logits == 12 * tiny_llama().config.vocab_size * 12
    with pytest.raises(ValueError, match="no row"):
        cost_of(tiny_llama().config, [], settings)


def test_the_last_way_is_what_training_does():
    settings = TuneSettings(
        rows_per_step=4, savings=Savings(supervised_rows=False, shared_prefixes=False)
    )
    found = cost_of(tiny_llama().config, ROWS, settings)
    # Without supervised rows in the head there are none in the last block.
    assert [way.name for way in found.ways[2:]] == ["no padding", "tail cut"]
    assert found.computed == 4 * 34
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 97}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    gemma = cost_of(Gemma2Config(**shape, **heads), ROWS, TuneSettings(rows_per_step=4))
    assert [way.name for way in gemma.ways[2:]] == ["like lengths", "tail cut", "supervised rows"]
    assert "this is gemma2" in gemma.why_padded
    assert found.why_padded is None


def test_frozen_weights_save_the_gradients_of_linear_layers():
    plain, lora = (
        cost_of(tiny_llama().config, ROWS, TuneSettings(rows_per_step=4, lora=how))
        for how in (None, LoraSettings(rank=2))
    )
    for one, other in zip(plain.ways, lora.ways, strict=True):
        assert other.flops.blocks == pytest.approx(one.flops.blocks * 2 / 3)
        assert other.flops.head == pytest.approx(one.flops.head * 2 / 3)
        assert other.flops.attention == one.flops.attention
