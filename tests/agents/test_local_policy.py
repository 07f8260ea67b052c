"""Acting in a batch, with a kept cache, gives what each conversation alone would get."""

import os

import pytest
import torch
from transformers import (
    Gemma3Config,
    LlamaConfig,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Qwen2Config,
)

from atlas_tune.agents.chat_template import render_text
from atlas_tune.agents.local_policy import LocalPolicy, has_window
from tiny_model import CHATML, tiny_llama, tiny_tokenizer

DEVICE = os.environ.get("ATLAS_TUNE_TEST_DEVICE", "cpu")
LONG = "I need iron ingot to craft stick. "
FORGETFUL = CHATML.replace(
    "message['content'] +",
    "(message['content'] if message['role'] != 'assistant' else '…') +",
)


def sharp_llama():
    """Random weights, but logits far enough apart that rounding never decides."""
    model = tiny_llama(seed=3).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    return model.to(DEVICE)


class Alone:
    """The plain way: one conversation, the whole history read anew at every turn, no cache.

    Like an acting model, it keeps the tokens that it wrote: a text can often be split in more
    than one way, and a random model writes tokens that no tokenizer would choose.
    """

    def __init__(self, model, tokenizer, max_new_tokens):
        self.model, self.tokenizer, self.limit = model, tokenizer, max_new_tokens
        self.ids, self.seen = [], ""

    def reply(self, messages):
        text = render_text(self.tokenizer, messages, generation_prompt=True)
        known = text.startswith(self.seen)
        fresh = self.tokenizer(text[len(self.seen) if known else 0 :], add_special_tokens=False)
        self.ids = (self.ids if known else []) + fresh["input_ids"]
        end = self.tokenizer.eos_token_id
        written = self.model.generate(
            torch.tensor([self.ids], device=DEVICE),
            attention_mask=torch.ones(1, len(self.ids), dtype=torch.long, device=DEVICE),
            max_new_tokens=self.limit,
            do_sample=False,
            use_cache=False,
            eos_token_id=end,
            pad_token_id=self.tokenizer.pad_token_id,
        )[0, len(self.ids) :].tolist()
        self.ids += written
        reply = self.tokenizer.decode(written[:-1] if written[-1] == end else written)
        self.seen = text + reply + ("<|im_end|>" if written[-1] == end else "")
        return reply


def opening(i):
    return [
        {"role": "user", "content": "Rules: get, craft, inventory."},
        {"role": "assistant", "content": "OK."},
        {"role": "user", "content": f"Goal {i}: " + LONG * i},
    ]


@pytest.mark.parametrize("template", [CHATML, FORGETFUL])
def test_replies_equal_one_by_one_generation_over_many_turns(template):
    model, tokenizer = sharp_llama(), tiny_tokenizer(template)
    policy = LocalPolicy(model, tokenizer, max_new_tokens=12)
    conversations = {str(i): opening(i) for i in range(5)}
    plain = {key: Alone(model, tokenizer, 12) for key in conversations}
    lengths = set()
    for turn in range(4):
        replies = policy.replies(conversations)
        for key, messages in conversations.items():
            assert replies[key] == plain[key].reply(messages), (turn, key)
            messages += [
                {"role": "assistant", "content": replies[key]},
                {"role": "user", "content": f"Got {turn} " + LONG * (int(key) * turn % 3)},
            ]
            lengths.add(len(replies[key]))
        # An episode ends now and then; the others go on.
        conversations.pop(str(turn), None)
    assert len(lengths) > 1


def test_new_episodes_start_a_new_batch():
    model, tokenizer = sharp_llama(), tiny_tokenizer()
    policy = LocalPolicy(model, tokenizer, max_new_tokens=8)
    policy.replies({"a": opening(0), "b": opening(1)})
    replies = policy.replies({"c": opening(2)})
    assert replies == {"c": Alone(model, tokenizer, 8).reply(opening(2))}


def test_a_single_episode_whose_prompt_is_all_shared():
    model, tokenizer = sharp_llama(), tiny_tokenizer()
    policy = LocalPolicy(model, tokenizer, max_new_tokens=8)
    same = {"a": opening(1), "b": opening(1)}
    expected = Alone(model, tokenizer, 8).reply(opening(1))
    assert policy.replies(same) == {"a": expected, "b": expected}
    assert policy.replies({}) == {}


def test_rows_that_have_ended_are_left_behind_and_their_slots_are_not_kept():
    model, tokenizer = sharp_llama(), tiny_tokenizer()
    conversations = {str(i): opening(i) for i in range(6)}
    plain = {key: Alone(model, tokenizer, 40) for key in conversations}
    said = {key: alone.reply(conversations[key]) for key, alone in plain.items()}
    prompts = [
        tokenizer(render_text(tokenizer, messages, generation_prompt=True))["input_ids"]
        for messages in conversations.values()
    ]
    lengths = [
        len(alone.ids) - len(ids) for alone, ids in zip(plain.values(), prompts, strict=True)
    ]
    fed = []
    model.model.embed_tokens.register_forward_hook(lambda m, args, out: fed.append(out.shape[0]))
    policy = LocalPolicy(model, tokenizer, max_new_tokens=40)
    assert policy.replies(conversations) == said
    # The first token needs no step of its own: it follows from reading the prompts.
    writing = [sum(n > place for n in lengths) for place in range(1, max(lengths))]
    assert len(set(writing)) > 2
    steps = fed[-len(writing) :]
    assert all(alive <= rows < 2 * alive for alive, rows in zip(writing, steps, strict=True))


def test_the_shared_beginning_is_read_once():
    model, tokenizer = sharp_llama(), tiny_tokenizer()
    seen = []
    model.model.embed_tokens.register_forward_hook(lambda m, args, out: seen.append(out.shape[:2]))
    LocalPolicy(model, tokenizer, max_new_tokens=1).replies({str(i): opening(i) for i in range(4)})
    shared, rest = seen
    assert shared[0] == 1
    assert rest[0] == 4
    assert shared[1] > 30


@pytest.mark.parametrize(
    ("config", "windowed"),
    [
        (LlamaConfig(), False),
        (MistralConfig(sliding_window=8), True),
        (MistralConfig(sliding_window=None), False),
        (Phi3Config(sliding_window=8), True),
        (Qwen2Config(use_sliding_window=False), False),
        (Gemma3Config(), True),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_windows_are_found_wherever_a_configuration_tells_of_them(config, windowed):
    assert has_window(config) is windowed


def test_a_model_with_a_window_acts_as_it_does_alone():
    config = MistralConfig(
        vocab_size=len(tiny_tokenizer()),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=12,
        eos_token_id=tiny_tokenizer().eos_token_id,
    )
    torch.manual_seed(3)
    model = MistralForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    alone, together = Alone(model, tiny_tokenizer(), 6), LocalPolicy(model, tiny_tokenizer(), 6)
    short, long = opening(0), [*opening(1)[:-1], {"role": "user", "content": LONG * 3}]
    found = together.replies({"short": short, "long": long})
    assert found["short"] == alone.reply(short)
    assert found["long"] == Alone(model, tiny_tokenizer(), 6).reply(long)
