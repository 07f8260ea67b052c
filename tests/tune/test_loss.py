"""The sparse loss is the plain loss: same value and same gradients, in float64."""

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from atlas_tune.agents.chat_template import render_text
from atlas_tune.trajectory import Selection
from atlas_tune.trajectory.messages import to_messages
from atlas_tune.tune.loss import supervised_loss_sum
from atlas_tune.tune.padded_loss import collate
from atlas_tune.tune.render import render_rows
from atlas_tune.tune.rows import IGNORED, Row, Span
from tiny_model import tiny_llama, tiny_tokenizer
from trajectory.runs import craft_run

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def models():
    torch.manual_seed(0)
    yield tiny_llama(vocab_size=97)
    for config in (Qwen2Config(**SHAPE), Qwen3Config(**SHAPE), MistralConfig(**SHAPE)):
        yield AutoModelForCausalLM.from_config(config)
    # Gemma 2 caps its logits: what an architecture does around the head must stay in place.
    yield Gemma2ForCausalLM(Gemma2Config(**SHAPE, final_logit_softcapping=5.0))


def rows() -> list[Row]:
    draw = torch.Generator().manual_seed(1)
    ids = [tuple(torch.randint(0, 97, (n,), generator=draw).tolist()) for n in (23, 17, 9)]
    spans = [(Span(4, 5, 9), Span(6, 14, 20)), (Span(4, 12, 17),), (Span(4, 1, 3),)]
    return [Row(f"t{i}", ids[i], spans[i], len(ids[i])) for i in range(3)]


def plain_loss_sum(model: nn.Module, row: Row) -> torch.Tensor:
    """Full logits of one unpadded row, then cross entropy over all positions."""
    logits = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1]
    targets = torch.tensor(row.labels[1:])
    return nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")


@pytest.mark.parametrize("model", list(models()), ids=lambda m: type(m).__name__)
def test_loss_and_every_gradient_equal_plain_training(model):
    model = model.double()
    batch = rows()
    plain = sum(plain_loss_sum(model, row) for row in batch)
    plain.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    loss = supervised_loss_sum(model, *collate(batch))
    loss.backward()
    assert loss.item() == pytest.approx(plain.item(), rel=1e-9)
    # Gemma multiplies its norm's weight in float32 even here, so its gradients carry that rounding.
    bound = 1e-6 if isinstance(model, Gemma2ForCausalLM) else 1e-9
    for name, parameter in model.named_parameters():
        scale = expected[name].abs().max()
        assert (parameter.grad - expected[name]).abs().max() <= bound * scale, name


def test_cutting_the_tail_changes_nothing():
    """The row that render_rows cuts, against the same trajectory rendered to its end."""
    tokenizer, run = tiny_tokenizer(), craft_run(steps=4)
    (cut,) = render_rows(tokenizer, run, Selection(run.trajectory_id, (5,), "test"))
    text = render_text(tokenizer, to_messages(run).messages, generation_prompt=False)
    whole_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(whole_ids) == cut.full_length > len(cut.input_ids)
    whole = Row(cut.trajectory_id, tuple(whole_ids), cut.spans, cut.full_length)
    model = tiny_llama().double()
    found = []
    for row in (cut, whole):
        model.zero_grad()
        loss = plain_loss_sum(model, row)
        loss.backward()
        found.append((loss.item(), {n: p.grad.clone() for n, p in model.named_parameters()}))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    for name, gradient in found[0][1].items():
        difference = (gradient - found[1][1][name]).abs().max()
        assert difference <= 1e-9 * gradient.abs().max(), name


def test_only_supervised_rows_go_through_the_head():
    model = tiny_llama(vocab_size=97)
    seen = []
    model.lm_head.register_forward_hook(lambda module, args, out: seen.append(out.shape[:2]))
    supervised_loss_sum(model, *collate(rows()))
    assert seen == [(1, 17)]
