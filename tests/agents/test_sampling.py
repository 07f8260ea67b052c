"""Samples follow the softmax, and a reply is the same alone, in a batch and in any order."""

import math
from collections import Counter

import pytest
import torch

from agents.test_local_policy import Alone, opening, sharp_llama
from atlas_tune.agents.chat_template import render_text
from atlas_tune.agents.local_policy import LocalPolicy
from atlas_tune.agents.making import ConversationTooLong, LocalPolicies
from atlas_tune.agents.prefixes import longest_of_each
from atlas_tune.agents.sampling import ROWS, gumbel, sample
from atlas_tune.agents.streams import episode_key, hashed, reply_seed
from atlas_tune.errors import UsageError
from tiny_model import tiny_llama, tiny_tokenizer

CHI_SQUARE_999 = {4: 18.47, 5: 20.52}
"""What a chi-square of so many degrees of freedom exceeds once in a thousand times."""


def chi_square(counts, shares):
    total = sum(counts)
    return sum((n - total * p) ** 2 / (total * p) for n, p in zip(counts, shares, strict=True))


def sampling(model, seed=0, temperature=1.0, max_new_tokens=5):
    return LocalPolicy(model, tiny_tokenizer(), max_new_tokens, temperature=temperature, seed=seed)


def test_the_noise_is_that_of_splitmix64():
    # The first outputs of the reference implementation for seed 1234567.
    words = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    expected = [-math.log(-math.log1p(-((word >> 32) + 0.5) / 2**32)) for word in words]
    assert gumbel(torch.tensor([1234567]), 3)[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_the_noise_has_the_mean_and_variance_of_gumbel():
    noise = gumbel(torch.arange(1000), 1000).double()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.005)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.01)
    # Neighbouring rows and neighbouring tokens are independent.
    for one, other in ((noise[:-1], noise[1:]), (noise[:, :-1], noise[:, 1:])):
        assert abs(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]) < 0.005
    assert torch.isfinite(noise).all()


@pytest.mark.parametrize("rows", [0, 1, ROWS, ROWS + 1, 3 * ROWS - 1])
def test_rows_are_drawn_in_blocks_as_they_are_at_once(rows):
    logits = torch.randn(rows, 50, generator=torch.Generator().manual_seed(0))
    seeds = [hashed(3, i) for i in range(rows)]
    at_once = (logits / 0.7 + gumbel(torch.tensor(seeds, dtype=torch.int64), 50)).argmax(-1)
    assert torch.equal(sample(logits, 0.7, seeds), at_once)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_come_as_often_as_the_softmax_says(temperature):
    logits = torch.tensor([0.0, 1.0, -1.5, 2.0, 0.5, -4.0])
    rows = 20_000
    drawn = sample(logits.expand(rows, 6), temperature, [hashed(7, i) for i in range(rows)])
    counts = torch.bincount(drawn, minlength=6).tolist()
    assert chi_square(counts, (logits / temperature).softmax(0).tolist()) < CHI_SQUARE_999[5]


def test_replies_of_a_model_come_as_often_as_its_softmax_says():
    model, tokenizer = tiny_llama(seed=3).eval(), tiny_tokenizer()
    with torch.no_grad():
        model.lm_head.weight.mul_(6)
    text = render_text(tokenizer, opening(1), generation_prompt=True)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        shares = (model(ids).logits[0, -1] / 0.8).softmax(-1)
    words = Counter()
    for token, share in enumerate(shares.tolist()):
        end = token == tokenizer.eos_token_id
        words["" if end else tokenizer.decode([token])] += share
    likely = [word for word, _ in words.most_common(4)]
    policy = sampling(model, seed=1, temperature=0.8, max_new_tokens=1)
    found = Counter(policy.replies({str(i): opening(1) for i in range(1500)}).values())
    counts = [found[word] for word in likely]
    expected = [words[word] for word in likely]
    counts.append(1500 - sum(counts))
    expected.append(1 - sum(expected))
    assert expected[-1] > 0.01
    assert chi_square(counts, expected) < CHI_SQUARE_999[4]


def play(policy, keys, turns=3):
    """Every reply of some conversations that go on for a few turns, by (turn, key)."""
    conversations = {key: opening(int(key) % 5) for key in keys}
    found = {}
    for turn in range(turns):
        for key, reply in policy.replies(conversations).items():
            found[turn, key] = reply
            conversations[key] += [
                {"role": "assistant", "content": reply},
                {"role": "user", "content": f"Got {turn}."},
            ]
    return found


def test_a_reply_is_the_same_alone_in_a_batch_and_in_another_order():
    model = sharp_llama()
    together = play(sampling(model, temperature=8.0), "01234")
    assert len(set(together.values())) == len(together)
    assert play(sampling(model, temperature=8.0), "43210") == together
    for key in "024":
        alone = play(sampling(model, temperature=8.0), [key])
        assert alone == {place: reply for place, reply in together.items() if place[1] == key}


def test_seeds_streams_and_turns_draw_differently():
    model = sharp_llama()

    def reply(key, seed, messages):
        return sampling(model, seed, temperature=8.0).replies({key: messages})[key]

    said = [*opening(1), {"role": "assistant", "content": "x"}, opening(1)[2]]
    drawn = [
        reply("7", 0, opening(1)),
        reply("7", 1, opening(1)),
        reply("8", 0, opening(1)),
        reply("7", 0, said),
    ]
    assert len(set(drawn)) == 4


def test_episodes_of_one_stream_draw_the_same_numbers():
    policy = sampling(sharp_llama(), temperature=8.0)
    keys = [episode_key("7", "a"), episode_key("7", "b"), episode_key("8", "a")]
    first, second, other = policy.replies({key: opening(2) for key in keys}).values()
    assert first == second != other
    assert reply_seed(0, "7#a", opening(1)) == reply_seed(0, "7", opening(2))


def test_a_temperature_near_zero_is_greedy():
    model = sharp_llama()
    greedy = play(LocalPolicy(model, tiny_tokenizer(), 5), "0123")
    assert play(sampling(model, temperature=1e-6), "0123") == greedy
    assert play(sampling(model, temperature=8.0), "0123") != greedy


def places_of_a_run():
    """The conversations before each step of a recorded run, the longest last."""
    messages = opening(2)
    places = [list(messages)]
    for turn in range(3):
        messages += [
            {"role": "assistant", "content": f"Thought: {turn}\nAction: get stick"},
            {"role": "user", "content": f"Got {turn} stick. " * (turn + 1)},
        ]
        places.append(list(messages))
    return places


def test_the_places_of_a_run_are_read_once_and_answered_as_alone():
    model, tokenizer = sharp_llama(), tiny_tokenizer()
    conversations = {
        f"{t}.{copy}": list(messages)
        for t, messages in enumerate(places_of_a_run())
        for copy in range(2)
    }
    conversations["elsewhere"] = opening(4)
    alone = {key: Alone(model, tokenizer, 3) for key in conversations}
    expected = {key: alone[key].reply(said) for key, said in conversations.items()}
    widths = []
    hook = model.model.embed_tokens.register_forward_hook(
        lambda m, args, out: widths.append(tuple(out.shape[:2]))
    )
    policy = LocalPolicy(model, tokenizer, 3)
    replies = policy.replies(conversations)
    hook.remove()
    assert replies == expected
    # The instruction, the longest place beside the other run, then one token for each of nine.
    assert [rows for rows, _ in widths[:3]] == [1, 2, 9]
    assert widths[2] == (9, 1)
    # The episodes go on apart from there.
    for key, said in conversations.items():
        said += [{"role": "assistant", "content": replies[key]}, opening(1)[2]]
    expected = {key: alone[key].reply(said) for key, said in conversations.items()}
    assert policy.replies(conversations) == expected


def test_a_prompt_is_held_by_the_longest_that_begins_with_it():
    prompts = [[1, 2], [1, 2, 3, 4], [1, 5], [1, 2, 3], [9], [1, 2, 3, 4], [1, 2, 8, 8]]
    held = longest_of_each(prompts)
    for prompt, by in zip(prompts, held, strict=True):
        assert prompts[by][: len(prompt) - 1] == prompt[:-1]
        assert held[by] == by
    assert [prompts[by] for by in (held[1], held[3], held[5])] == [[1, 2, 3, 4]] * 3
    assert held[1] == held[3] == held[5]
    assert held[6] == 6
    assert longest_of_each([[1, 2, 3], [4, 5]]) == [0, 1]


def test_what_is_forgotten_is_read_anew():
    model, tokenizer = sharp_llama(), tiny_tokenizer()
    policy = LocalPolicy(model, tokenizer, 8)
    first = policy.replies({"a": opening(1)})
    policy.forget()
    assert policy.replies({"a": opening(1)}) == first


def test_a_temperature_below_zero_and_a_conversation_too_long_are_refused():
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    for temperature in (-1.0, math.nan):
        with pytest.raises(UsageError, match="0 \\(greedy\\) or above"):
            LocalPolicy(model, tokenizer, temperature=temperature)
    text = render_text(tokenizer, opening(1), generation_prompt=True)
    prompt = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    fits = LocalPolicy(model, tokenizer, 8, context=prompt + 8)
    assert set(fits.replies({"a": opening(1)})) == {"a"}
    tight = LocalPolicy(model, tokenizer, 8, context=prompt + 7)
    with pytest.raises(ConversationTooLong, match=f"has {prompt} tokens.*exceeds the {prompt + 7}"):
        tight.replies({"a": opening(1)})
    # It grows too long in its second turn; then nothing of it is kept.
    said = opening(1)
    reply = fits.replies({"b": said})["b"]
    with pytest.raises(ConversationTooLong, match="with a reply of up to 8"):
        fits.replies({"b": [*said, {"role": "assistant", "content": reply}, said[2]]})
    assert fits.replies({"b": said})["b"] == reply


def test_policies_of_one_model_share_its_weights_and_know_its_context(tmp_path):
    model = tiny_llama(max_position_embeddings=40)
    model.save_pretrained(tmp_path / "tiny")
    tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    policies = LocalPolicies(str(tmp_path / "tiny"), 8, "float32")
    greedy, warm = policies(0, 0.0), policies(3, 0.5)
    assert greedy.model is warm.model
    assert (greedy.temperature, warm.temperature, warm.seed) == (0.0, 0.5, 3)
    assert policies.identity.startswith("tiny@")
    with pytest.raises(ConversationTooLong, match="exceeds the 40"):
        greedy.replies({"a": opening(3)})
