import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM, MistralConfig, MistralForCausalLM

from atlas_tune.errors import AtlasError
from atlas_tune.select.judging import branching
from atlas_tune.select.judging.branching import BranchCount, BranchReader, Group, groups_of
from tiny_model import tiny_llama

PREAMBLE = [7, 7, 8, 9]


def random_prompts(seed, length, ends):
    """Prompts that share ``length`` tokens after the preamble and end with 1 to 6 of their own."""
    draw = torch.Generator().manual_seed(seed)

    def tokens(count):
        return torch.randint(3, 256, (count,), generator=draw).tolist()

    trunk = PREAMBLE + tokens(length)
    return [trunk + tokens(1 + i % 6) for i in range(ends)]


def plain(model, prompts):
    with torch.inference_mode():
        return torch.stack([model(input_ids=torch.tensor([p])).logits[0, -1] for p in prompts])


def windowed():
    torch.manual_seed(0)
    return MistralForCausalLM(
        MistralConfig(
            vocab_size=256,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            sliding_window=16,
        )
    )


def test_a_group_shares_all_but_a_last_token():
    assert list(groups_of([[1, 2, 3, 4], [1, 2, 5], [1, 9], [1, 9]], 2)) == [
        Group((1, 2), ((3, 4), (5,))),
        Group((1,), ((9,), (9,))),
    ]
    assert list(groups_of([[1, 2], [1, 2, 3]], 8)) == [Group((1,), ((2,), (2, 3)))]
    assert list(groups_of([[4]], 8)) == [Group((), ((4,),))]


def test_counting_by_hand():
    count = BranchCount([1, 2])
    # The preamble (2) once; then 3 is new in the trunk, and the ends have 2 and 1 tokens.
    count.read([[1, 2, 3, 4, 5], [1, 2, 3, 6]], 2)
    assert count.tokens == 2 + 1 + 3
    # One by one: 3 4 5 after the preamble, then all that the second does not share: 6.
    count.read([[1, 2, 3, 4, 5], [1, 2, 3, 6]], 1)
    assert count.tokens == 6 + 3 + 1
    # Another beginning shares nothing, and its reading drives the preamble out.
    count.read([[8, 9]], 1)
    count.read([[1, 2, 3]], 1)
    assert count.tokens == 10 + 2 + 2 + 1


@pytest.mark.parametrize("make_model", [tiny_llama, windowed])
@pytest.mark.parametrize("branches", [1, 3, 8])
def test_branches_equal_plain_forward_passes(make_model, branches):
    model = make_model().double().eval()
    reader, count = BranchReader(model, PREAMBLE), BranchCount(PREAMBLE)
    for seed, length in enumerate((50, 9, 120)):
        prompts = random_prompts(seed, length, 7)
        count.read(prompts, branches)
        torch.testing.assert_close(
            reader.read(prompts, branches), plain(model, prompts), rtol=0, atol=1e-12
        )
        assert reader.tokens == count.tokens


def test_prompts_that_grow_are_read_once():
    model = tiny_llama().double().eval()
    record = random_prompts(1, 60, 1)[0]
    prompts = [[*record[:at], 11, 12] for at in (20, 35, 50)]
    reader = BranchReader(model, PREAMBLE)
    found = reader.read(prompts, 1)
    torch.testing.assert_close(found, plain(model, prompts), rtol=0, atol=1e-12)
    assert reader.tokens == 50 + 3 * 2


def test_long_trunks_are_read_in_chunks(monkeypatch):
    monkeypatch.setattr(branching, "CHUNK", 16)
    model = tiny_llama().double().eval()
    prompts = random_prompts(2, 100, 4)
    found = BranchReader(model, PREAMBLE).read(prompts, 4)
    torch.testing.assert_close(found, plain(model, prompts), rtol=0, atol=1e-12)


def test_prompts_that_share_nothing():
    model = tiny_llama().double().eval()
    prompts = [[5, 6, 7], [6, 7], [9]]
    for branches in (1, 3):
        found = BranchReader(model, PREAMBLE).read(prompts, branches)
        torch.testing.assert_close(found, plain(model, prompts), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_read_before_changes_no_bit(dtype):
    model = tiny_llama().to(dtype).eval()
    one, other = random_prompts(3, 70, 5), random_prompts(4, 40, 5)
    stranger = [[200, 201, 202], [200, 201]]
    alone = BranchReader(model, PREAMBLE).read(other, 3)
    reader = BranchReader(model, PREAMBLE)
    for before in (one, stranger, other):
        reader.read(before, 3)
        assert torch.equal(reader.read(other, 3), alone)


def test_a_model_with_a_running_state_is_refused():
    model = MambaForCausalLM(MambaConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1))
    with pytest.raises(AtlasError, match="keeps a running state"):
        BranchReader(model)
