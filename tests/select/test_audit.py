"""Precision, recall and what chance would give, against counting by hand."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_tune.select.auditing.audit import audit
from atlas_tune.select.auditing.ratings import CRITICAL, NONE, Rater, compare, with_kinds
from atlas_tune.trajectory import Kind

CALLS = {"c": CRITICAL, "n": NONE, "p": Kind.PLAN_CREATION.value, "a": Kind.CRITICAL_ACTION.value}


def rater(name, **said):
    return Rater(
        name,
        {key: {i: CALLS[sign] for i, sign in enumerate(text, 1)} for key, text in said.items()},
    )


def audited(selected, marked, **settings):
    return audit(compare([rater("sel", **selected), rater("ref", **marked)]), **settings)


def test_scores_by_hand():
    found = audited({"t": "ccnnnnnn", "u": "cnnn"}, {"t": "cncnnnnn", "u": "cccn"}).whole
    assert (found.trajectories, found.steps) == (2, 12)
    assert (found.selected, found.marked, found.hits) == (3, 5, 2)
    assert found.precision.value == pytest.approx(2 / 3)
    assert found.recall.value == pytest.approx(2 / 5)
    assert found.f1.value == pytest.approx(2 * (2 / 3) * (2 / 5) / (2 / 3 + 2 / 5))
    assert found.prevalence.value == pytest.approx(5 / 12)
    assert found.lift.value == pytest.approx((2 / 3) / (5 / 12))
    assert found.lift.value == pytest.approx(found.recall.value / found.share.value)
    # Two of the 8 steps of t and one of the 4 of u, drawn by lot: 2·2/8 + 1·3/4 hits.
    assert found.matched_lift.value == pytest.approx(2 / (0.5 + 0.75))
    # Two steps may hit in t and one in u.
    assert found.attainable.value == pytest.approx(3 / 5)


def test_matched_lift_of_all_possible_draws_is_one_on_average():
    marked = {"t": "ccnnn", "u": "cnnnnnn"}
    expected = hits = draws = 0
    for t, u in itertools.product(itertools.combinations(range(5), 2), range(7)):
        chosen = {
            "t": "".join("c" if place in t else "n" for place in range(5)),
            "u": "".join("c" if place == u else "n" for place in range(7)),
        }
        whole = audited(chosen, marked, draws=100).whole
        draws += 1
        hits += whole.hits
        expected = 2 * 2 / 5 + 1 / 7
        if whole.hits:
            assert whole.matched_lift.value == pytest.approx(whole.hits / expected)
    assert hits / draws == pytest.approx(expected)


@pytest.mark.parametrize(
    ("selected", "marked", "undefined"),
    [
        ("nnn", "cnn", {"precision", "lift", "matched_lift"}),
        ("cnn", "nnn", {"recall", "lift", "matched_lift", "attainable"}),
        ("nnn", "nnn", {"precision", "recall", "f1", "lift", "matched_lift", "attainable"}),
    ],
)
def test_what_is_undefined_is_said_and_never_a_number(selected, marked, undefined):
    whole = audited({"t": selected, "u": selected}, {"t": marked, "u": marked}).whole
    for name in ("precision", "recall", "f1", "lift", "matched_lift", "attainable", "prevalence"):
        figure = getattr(whole, name)
        assert (figure.value is None) == (name in undefined)
        assert bool(figure.why) == (name in undefined)


texts = st.text("cn", min_size=1, max_size=10)


@settings(max_examples=60)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6))
def test_scores_are_those_of_counting_steps(runs):
    pairs = [(a[: len(b)], b[: len(a)]) for a, b in runs]
    names = [f"{number:02d}" for number in range(len(pairs))]
    selected = dict(zip(names, (a for a, _ in pairs), strict=True))
    marked = dict(zip(names, (b for _, b in pairs), strict=True))
    whole = audited(selected, marked, draws=100).whole
    steps = [step for a, b in pairs for step in zip(a, b, strict=True)]
    hits, chosen = steps.count(("c", "c")), sum(a == "c" for a, _ in steps)
    known = sum(b == "c" for _, b in steps)
    assert (whole.hits, whole.selected, whole.marked) == (hits, chosen, known)
    assert whole.precision.value == (pytest.approx(hits / chosen) if chosen else None)
    assert whole.recall.value == (pytest.approx(hits / known) if known else None)
    for figure in (whole.precision, whole.recall, whole.f1, whole.prevalence):
        if figure.low is not None:
            assert 0 <= figure.low <= figure.high <= 1
    turned = audited(marked, selected, draws=100).whole
    assert (turned.precision.value, turned.f1.value) == (whole.recall.value, whole.f1.value)
    assert whole.attainable.value is None or whole.recall.value <= whole.attainable.value + 1e-12


def test_intervals_hold_the_value_and_shrink_with_more_runs():
    few = {f"{n:03d}": ("ccnn" if n % 2 else "nncc") for n in range(10)}
    many = {f"{n:03d}": ("ccnn" if n % 2 else "nncc") for n in range(160)}
    widths = []
    for runs in (few, many):
        precision = audited(runs, dict.fromkeys(runs, "ccnn")).whole.precision
        assert precision.low < precision.value == 0.5 < precision.high
        widths.append(precision.high - precision.low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.25)


def test_kinds_of_either_side():
    found = audited({"t": "ppann", "u": "annnn"}, {"t": "acncn", "u": "annnn"})
    plans = found.selected_kinds[Kind.PLAN_CREATION.value]
    actions = found.selected_kinds[Kind.CRITICAL_ACTION.value]
    assert (plans.steps, plans.hits, plans.share.why) == (2, 2, "one trajectory gives no interval")
    assert (actions.steps, actions.hits, actions.share.value) == (2, 1, 0.5)
    assert found.marked_kinds[Kind.CRITICAL_ACTION.value].hits == 2
    assert set(found.marked_kinds) == {Kind.CRITICAL_ACTION.value}


def test_a_selection_gets_the_kinds_of_its_labels():
    chosen = rater("sel", t="ccn")
    known = with_kinds(chosen, rater("labels", t="pnc"))
    # What the labels call uncritical was selected all the same, and stays so without a kind.
    assert list(known.said["t"].values()) == [CALLS["p"], CRITICAL, NONE]
