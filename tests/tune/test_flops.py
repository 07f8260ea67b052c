"""Operations of a step, against counts made by hand."""

import pytest
from transformers import LlamaConfig, Qwen3MoeConfig

from atlas_tune.tune.flops import Flops, Shape, Way, flops_of, one_row_per_step, savings, ways
from atlas_tune.tune.prefixes import forest_of
from atlas_tune.tune.rows import Row, Span
from atlas_tune.tune.settings import Savings

SHAPE = Shape(layers=2, block=10, keys_and_values=4, attention=3, head=7)
ROW = Row("a", (1, 2, 3, 4), (Span(1, 2, 4),), 6)
TWIN = Row("b", (1, 2, 3, 5), (Span(1, 3, 4),), 5)


def test_a_dense_step():
    forest = forest_of([ROW], least_shared=None)
    # 4 tokens see 1 + 2 + 3 + 4 keys; forward and backward are three times the forward pass.
    wanted = Flops(3 * 2 * 10 * 4 * 2, 3 * 4 * 3 * 10 * 2, 3 * 2 * 7 * 4)
    assert flops_of(SHAPE, forest, rows_only=False, sparse_last_block=False) == wanted


def test_supervised_rows_alone_in_the_last_block_and_the_head():
    # The tokens at 2 and 3 are predicted at 1 and 2, which see 2 and 3 keys.
    found = flops_of(SHAPE, forest_of([ROW], least_shared=None))
    blocks = 2 * (10 * 4 + 4 * 4 + 6 * 2)
    assert found == Flops(3 * blocks, 3 * 4 * 3 * (10 + 2 + 3), 3 * 2 * 7 * 2)


def test_what_is_shared_counts_once():
    shared = flops_of(SHAPE, forest_of([ROW, TWIN], least_shared=3))
    alone = flops_of(SHAPE, forest_of([ROW, TWIN], least_shared=None))
    assert alone.blocks - shared.blocks > 3 * 2 * 10 * 3
    # Row and twin part behind the third token, which predicts both of their fourth ones.
    assert (shared.head, alone.head) == (3 * 2 * 7 * 2, 3 * 2 * 7 * 3)


def test_a_window_limits_what_is_seen():
    windowed = Shape(layers=1, block=0, keys_and_values=0, attention=1, head=0, window=2)
    found = flops_of(windowed, forest_of([ROW], least_shared=None), sparse_last_block=False)
    assert found.attention == 3 * 4 * (1 + 2 + 2 + 2)


def lengths(way, rows=(ROW, TWIN)):
    return [[len(row.input_ids) for row in batch] for batch in way.batches(rows)]


def test_padding_and_one_row_per_step():
    assert lengths(Way(2)) == [[6, 6]]
    assert lengths(Way(None)) == [[6], [5]]
    # Longest first, and the third would make 3 x 6 of at most 12 tokens.
    assert lengths(Way(None, like_length=12), [TWIN, ROW, TWIN]) == [[6, 6], [5]]
    assert lengths(Way(None, like_length=12, cut=True), [TWIN, ROW, TWIN]) == [[4, 4, 4]]
    two = Row("c", tuple(range(9)), (Span(1, 2, 4), Span(2, 7, 9)), 9)
    assert [row.input_ids for row in one_row_per_step([two])] == [(0, 1, 2, 3), tuple(range(9))]


def test_each_saving_adds_to_those_before_it():
    found = savings(SHAPE, [[ROW, TWIN]], batch=2)
    order = ["plain", "no padding", "tail cut", "supervised rows", "sparse last block",
             "shared prefixes"]  # fmt: skip
    totals = [found[name].total for name in order]
    assert totals == sorted(totals, reverse=True)


def test_where_padding_stays_the_last_way_is_that_of_training():
    *_, (name, last) = ways(Savings(no_padding=False, supervised_rows=False), 4, 4096).items()
    assert (name, last) == ("tail cut", Way(None, like_length=4096, cut=True))


def test_experts_are_not_counted_as_if_they_cost_nothing():
    config = Qwen3MoeConfig(hidden_size=8, intermediate_size=12, num_hidden_layers=1, vocab_size=50,
                            num_attention_heads=2, num_key_value_heads=1, num_experts=4,
                            moe_intermediate_size=8)  # fmt: skip
    with pytest.raises(ValueError, match=r"multiplies by mlp\..*, which is no linear layer"):
        Shape.of(config)


def test_the_shape_of_a_configuration():
    config = LlamaConfig(hidden_size=8, intermediate_size=12, num_hidden_layers=3, vocab_size=50,
                         num_attention_heads=4, num_key_value_heads=2)  # fmt: skip
    found = Shape.of(config)
    queries_and_output, keys_and_values, fed = 2 * 8 * 8, 2 * 8 * 4, 3 * 8 * 12
    assert found == Shape(3, queries_and_output + keys_and_values + fed, keys_and_values, 8, 400)
