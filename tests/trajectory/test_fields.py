"""Whatever a file holds, a reader accepts it or says why not: nothing else ever comes out."""

import copy
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_tune.trajectory import (
    InvalidTrajectory,
    Kind,
    LabelSource,
    Selection,
    StepLabel,
    dump_trajectory,
    parse_trajectory,
)
from atlas_tune.trajectory.labels import dump_label, parse_label
from atlas_tune.trajectory.selection import dump_selection, parse_selection
from trajectory.runs import craft_run

RUN = craft_run()
LABEL = StepLabel(
    RUN.trajectory_id,
    4,
    Kind.CRITICAL_ACTION,
    LabelSource("oracle", "1", "m", "p", "r"),
    score=0.5,
    reason="why",
    quote="I need",
    created_at="2026-01-01T00:00:00+00:00",
    supersedes="x",
)
CASES = [
    (parse_trajectory, dump_trajectory(RUN)),
    (parse_label, dump_label(LABEL)),
    (parse_selection, dump_selection(Selection(RUN.trajectory_id, (4, 6), "rule"))),
    (parse_selection, dump_selection(Selection(RUN.trajectory_id, (4, 6), "rule", (0.5, 2.0)))),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def places(value, path=()):
    """Every place inside a JSON value."""
    yield path
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from places(value[key], (*path, key))


@st.composite
def nearly(draw, good):
    """A good record with a strange value, or nothing, in one or two places."""
    record = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(list(places(record))))
        if not path:
            return draw(JSON)
        parent = record
        for key in path[:-1]:
            parent = parent[key]
        if draw(st.booleans()):
            parent[path[-1]] = draw(JSON)
        else:
            del parent[path[-1]]
    return record


@pytest.mark.parametrize(("read", "good"), CASES, ids=lambda case: getattr(case, "__name__", ""))
@given(data=st.data())
def test_a_strange_record_is_refused_with_a_sentence_or_read(read, good, data):
    record = data.draw(nearly(good) | JSON)
    with suppress(InvalidTrajectory):
        read(record)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema_version": "v7"}, "schema_version 'v7', which is not ATIF"),
        ({"extra": {"environment": 5}}, "extra has 'environment' as a whole number, not a text"),
        ({"extra": {"task_id": ["t"]}}, "extra has 'task_id' as a list, not a text"),
        ({"extra": {"outcome": 1}}, "extra has 'outcome' as a whole number, not an object"),
        ({"extra": {"outcome": {"reward": "1"}}}, "'reward' as a text, not a number"),
        ({"extra": {"outcome": {"reward": True}}}, "'reward' as true or false, not a number"),
        ({"extra": {"outcome": {"success": 1}}}, "'success' as a whole number, not true or fal"),
    ],
)
def test_what_we_give_a_meaning_is_checked(change, sentence):
    with pytest.raises(InvalidTrajectory, match=sentence):
        parse_trajectory({**dump_trajectory(RUN), **change})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"step_id": "4"}, "'step_id' as a text, not a whole number"),
        ({"step_id": True}, "'step_id' as true or false, not a whole number"),
        ({"score": "0.5"}, "'score' as a text, not a number"),
        ({"kind": "plan"}, "kind 'plan'; known: plan_creation"),
        ({"source": "oracle"}, "'source' as a text, not an object"),
        ({"source": {"version": "1"}}, "label source has no 'name'"),
        ({"source": {"name": "a", "vesion": "1"}}, "label source has unknown field 'vesion'"),
        ({"scor": 1}, "label has unknown field 'scor'"),
        ({"trajectory_id": None}, "label has no 'trajectory_id'"),
    ],
)
def test_a_bad_label_is_refused_with_its_field(change, sentence):
    with pytest.raises(InvalidTrajectory, match=sentence):
        parse_label({**dump_label(LABEL), **change})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"step_ids": "46"}, "'step_ids' as a text, not a list"),
        ({"step_ids": [4, "6"]}, "a step id that is a text"),
        ({"step_ids": [4, 4]}, "names a step twice"),
        ({"rule": None}, "selection has no 'rule'"),
        ({"trajectory_id": 5}, "'trajectory_id' as a whole number"),
        ({"steps": []}, "unknown field 'steps'"),
        ({"weights": 1}, "'weights' as a whole number, not a list"),
        ({"weights": [1, 0]}, "a weight that is 0, not a number above 0"),
        ({"weights": [1, float("inf")]}, "a weight that is inf"),
        ({"weights": [1, True]}, "a weight that is True"),
        ({"weights": [1]}, "1 weights for 2 steps"),
    ],
)
def test_a_bad_selection_is_refused_with_its_field(change, sentence):
    good = dump_selection(Selection("t", (4, 6), "rule"))
    with pytest.raises(InvalidTrajectory, match=sentence):
        parse_selection({**good, **change})
