"""What a batch holds stays what each row alone would hold, however its rows are moved."""

import copy

import torch

from atlas_tune.agents.batch import Batch, Row
from atlas_tune.agents.grouping import alike
from tiny_model import tiny_llama

PROMPTS = [[5, 6, 7, 8], [5, 6, 9], [5, 6, 7, 8, 10, 11, 12]]
NEXT = [[20], [21], [22]]


def alone(model, *segments):
    """The logits after the last token, everything read at once."""
    ids = [token for segment in segments for token in segment]
    return model(input_ids=torch.tensor([ids])).logits[:, -1]


def begun(model):
    """Three rows of which two have written more, each while the others waited."""
    rows = [Row(str(i)) for i in range(3)]
    batch, segments = Batch.read(model, rows, PROMPTS)
    batch.feed(segments)
    for token in range(13, 19):
        batch.feed([[token], [], []])
        batch.feed([[], [token], []])
    written = list(range(13, 19))
    return batch, [PROMPTS[0] + written, PROMPTS[1] + written, PROMPTS[2]]


@torch.inference_mode()
def test_packing_hides_nothing_and_moves_slots_together():
    model = tiny_llama().eval()
    batch, read = begun(model)
    assert [row.tokens for row in batch.rows] == [len(ids) for ids in read]
    packed = copy.deepcopy(batch)
    packed.pack()
    assert (packed.mask_BL.shape[1], batch.mask_BL.shape[1]) == (10, 19)
    expected = torch.cat([alone(model, ids, more) for ids, more in zip(read, NEXT, strict=True)])
    assert torch.allclose(batch.feed(NEXT), expected, atol=1e-6)
    assert torch.allclose(packed.feed(NEXT), expected, atol=1e-6)


@torch.inference_mode()
def test_copies_go_on_alone_and_are_taken_back():
    model = tiny_llama().eval()
    batch, read = begun(model)
    some = batch.some([2, 0])
    found = some.feed([[30], [31]])
    expected = torch.cat([alone(model, read[2], [30]), alone(model, read[0], [31])])
    assert torch.allclose(found, expected, atol=1e-6)
    some.feed([[32], [33]])
    batch.take_back([some], [[2, 0]])
    read = [read[0] + [31, 33], read[1], read[2] + [30, 32]]
    assert [row.tokens for row in batch.rows] == [len(ids) for ids in read]
    expected = torch.cat([alone(model, ids, more) for ids, more in zip(read, NEXT, strict=True)])
    assert torch.allclose(batch.feed(NEXT), expected, atol=1e-6)


def test_groups_cost_least():
    # One pass for all reads 3 x 100; the long one by itself saves 180 for a pass of 50.
    assert alike([10, 100, 8], one_pass=50) == [[0, 2], [1]]
    assert alike([10, 100, 8], one_pass=200) == [[0, 1, 2]]
    assert alike([10, 100, 8], one_pass=0) == [[2], [0], [1]]
    assert alike([7], one_pass=0) == [[0]]


@torch.inference_mode()
def test_a_row_that_gets_much_more_is_read_by_itself():
    model = tiny_llama().eval()
    batch, read = begun(model)
    fed = []
    model.model.embed_tokens.register_forward_hook(lambda m, args, out: fed.append(out.shape[:2]))
    more = [[20, 21], list(range(20, 220)), [22]]
    found = batch.feed(more)
    assert fed == [(2, 2), (1, 200)]
    read = [ids + new for ids, new in zip(read, more, strict=True)]
    assert [row.tokens for row in batch.rows] == [len(ids) for ids in read]
    expected = torch.cat([alone(model, ids) for ids in read])
    assert torch.allclose(found, expected, atol=1e-5)
    expected = torch.cat([alone(model, ids, new) for ids, new in zip(read, NEXT, strict=True)])
    assert torch.allclose(batch.feed(NEXT), expected, atol=1e-5)


@torch.inference_mode()
def test_rows_that_get_nothing_wait():
    model = tiny_llama().eval()
    batch, read = begun(model)
    more = [[], list(range(20, 220)), [22]]
    found = batch.feed(more)
    expected = torch.cat([alone(model, read[1], more[1]), alone(model, read[2], more[2])])
    assert torch.allclose(found[1:], expected, atol=1e-5)
    read = [ids + new for ids, new in zip(read, more, strict=True)]
    expected = torch.cat([alone(model, ids, new) for ids, new in zip(read, NEXT, strict=True)])
    assert torch.allclose(batch.feed(NEXT), expected, atol=1e-5)


@torch.inference_mode()
def test_a_prompt_that_is_the_beginning_of_all_is_read_with_the_longest():
    model = tiny_llama().eval()
    long = [5, 6, 7, *range(20, 220)]
    prompts = [[5, 6, 7], long, [5, 6, 7, 9, 10]]
    batch, segments = Batch.read(model, [Row(str(i)) for i in range(3)], prompts)
    expected = torch.cat([alone(model, ids) for ids in prompts])
    assert torch.allclose(batch.feed(segments), expected, atol=1e-5)
