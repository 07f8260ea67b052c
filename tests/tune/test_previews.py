from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_tune.trajectory import Selection
from atlas_tune.tune.previews import Preview, pieces_of, totals
from atlas_tune.tune.render import write_rows
from tiny_model import tiny_tokenizer
from trajectory.runs import craft_run


def written(places, steps=5):
    run = craft_run(steps=steps)
    chosen = tuple(run.agent_steps[place].step_id for place in places)
    (row,) = write_rows(tiny_tokenizer(), run, Selection(run.trajectory_id, chosen, "test"))
    return run, row


@given(st.sets(st.integers(0, 4), min_size=1))
@settings(max_examples=20)
def test_the_pieces_are_the_text_and_the_marked_ones_are_the_steps(places):
    run, row = written(sorted(places))
    pieces = pieces_of(row)
    assert "".join(piece.text for piece in pieces) == row.text
    marked = [piece for piece in pieces if piece.step_id is not None]
    by_id = {step.step_id: step for step in run.agent_steps}
    assert len(marked) == len(places)
    for piece in marked:
        assert piece.text.startswith(by_id[piece.step_id].message)
        assert not piece.is_cut
    assert sum(piece.tokens for piece in marked) == row.row.supervised
    assert sum(piece.tokens for piece in pieces) == len(row.starts)


def test_what_stands_behind_the_last_trained_token_is_cut():
    _, row = written([0])
    one = Preview.of(row)
    assert [piece.is_cut for piece in one.pieces] == [False, False, True]
    assert one.computed == len(row.row.input_ids) < one.tokens
    assert totals([one, one]) == (2 * one.tokens, 2 * one.computed, 2 * one.supervised)
