"""Known values of kappa and alpha, what they do at the edges, and their intervals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.select.auditing.agreement import (
    agree,
    agree_by_environment,
    cohen_kappa,
    coincidences,
    krippendorff_alpha,
)
from atlas_tune.select.auditing.ratings import (
    CRITICAL,
    NONE,
    Rater,
    compare,
    of_labels,
    of_selections,
)
from atlas_tune.select.auditing.resampling import bootstrapped
from atlas_tune.trajectory import Kind, LabelSource, Selection, StepLabel
from trajectory.runs import craft_run

PLAN, ACTION = Kind.PLAN_CREATION.value, Kind.CRITICAL_ACTION.value


def kappa(*rows):
    return float(cohen_kappa(np.array(rows, dtype=float)))


def alpha(*coders):
    """Of texts with a sign a unit, a dot where the coder is silent."""
    units = [
        tuple(None if sign == "." else sign for sign in unit) for unit in zip(*coders, strict=True)
    ]
    categories = sorted({sign for unit in units for sign in unit if sign is not None})
    return float(krippendorff_alpha(coincidences(units, categories)))


def rater(name, **said):
    """A rater of trajectories by name, each a text: c critical, p plan, a action, n none."""
    calls = {"c": CRITICAL, "p": PLAN, "a": ACTION, "n": NONE}
    return Rater(
        name,
        {
            key: {place: calls[sign] for place, sign in enumerate(text, 1) if sign != "."}
            for key, text in said.items()
        },
    )


def test_cohen_1960_table_of_three_categories():
    # Cohen (1960): 200 cases, observed .70, expected .41, kappa .492.
    assert kappa([88, 14, 18], [10, 40, 10], [2, 6, 12]) == pytest.approx(0.29 / 0.59)


def test_kappa_of_textbook_tables():
    assert kappa([20, 5], [10, 15]) == pytest.approx(0.4)
    # The same observed agreement of 0.6 with other margins.
    assert kappa([45, 15], [25, 15]) == pytest.approx(0.1304, abs=5e-5)
    assert kappa([25, 35], [5, 35]) == pytest.approx(0.2593, abs=5e-5)
    assert kappa([0, 10], [10, 0]) == -1


def test_krippendorff_four_coders_twelve_units():
    # Krippendorff (2011), example C: missing values, nominal alpha 0.743.
    found = alpha("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    assert found == pytest.approx(0.743, abs=5e-4)


def test_krippendorff_two_coders():
    # Krippendorff (2011), examples A (binary) and B (five categories).
    assert alpha("0100000010", "1110010000") == pytest.approx(0.095, abs=5e-4)
    assert alpha("aabbdcccedda", "babbbccceddd") == pytest.approx(0.692, abs=5e-4)


def test_alpha_of_two_is_scotts_pi_with_its_correction_for_few_units():
    first, second = "aabbdcccedda", "babbbccceddd"
    n = 2 * len(first)
    counts = [(first + second).count(sign) / n for sign in "abcde"]
    observed = sum(a != b for a, b in zip(first, second, strict=True)) / len(first)
    pi = 1 - observed / (1 - sum(share**2 for share in counts))
    assert alpha(first, second) == pytest.approx(1 - (n - 1) / n * (1 - pi))


def test_units_of_one_coder_do_not_count():
    assert alpha("0100000010ab", "1110010000..") == alpha("0100000010", "1110010000")


def test_kappa_of_a_constant_rater_is_undefined_and_says_who():
    found = agree(compare([rater("ann", t="cnnc"), rater("bob", t="nnnn")]))
    (pair,) = found.pairs
    assert pair.kappa.value is None
    assert pair.kappa.why == "bob calls no step critical (prevalence 0)"
    assert (pair.observed.value, pair.prevalence[1].value) == (0.5, 0)
    found = agree(compare([rater("ann", t="ccc"), rater("bob", t="ccc")]))
    assert found.pairs[0].kappa.why == "ann calls every step critical (prevalence 1)"
    assert found.alpha.value is None and found.alpha.why == "every step is called the same"
    assert found.pairs[0].observed.value == 1


def test_kinds_are_compared_where_both_name_them():
    ann, bob = rater("ann", t="ppanncn", u="pa"), rater("bob", t="pannnnc", u="pa")
    (pair,) = agree(compare([ann, bob])).pairs
    # Steps 6 and 7 of t are called critical without a kind by one of the two.
    assert (pair.steps, pair.kinds_steps) == (9, 7)
    assert pair.confusion[PLAN] == {PLAN: 2, ACTION: 1, CRITICAL: 0, NONE: 0}
    assert pair.confusion[CRITICAL][NONE] == 1 and pair.confusion[NONE][CRITICAL] == 1
    assert pair.kinds_kappa.value == pytest.approx(kappa([2, 1, 0], [0, 1, 1], [0, 0, 2]))
    assert pair.kappa.value == pytest.approx(kappa([4, 2], [1, 2]))


def test_a_rater_without_kinds_is_named_and_has_no_part_in_them():
    ann, bob, sel = rater("ann", t="pan"), rater("bob", t="pnn"), rater("sel", t="ccn")
    found = agree(compare([ann, bob, sel]))
    assert [pair.kinds_kappa.why for pair in found.pairs[1:]] == [
        "no kind is ever named by sel"
    ] * 2
    two = agree(compare([ann, bob]))
    assert found.kinds_alpha.value == two.kinds_alpha.value is not None


def test_a_pair_without_a_common_step_has_no_figure():
    raters = [
        rater("ann", t="cn"),
        rater("bob", t="nn"),
        rater("eve", u="cn"),
        rater("joe", u="cn"),
    ]
    pairs = {pair.raters: pair for pair in agree(compare(raters)).pairs}
    apart = pairs["ann", "eve"]
    assert (apart.steps, apart.kappa.value, apart.observed.value) == (0, None, None)
    assert apart.kappa.why == "there is no step of which both say it"
    assert pairs["eve", "joe"].kappa.value == 1


said = st.sampled_from("cpan.")
texts = st.lists(st.tuples(said, said, said), min_size=1, max_size=8)


def raters_of(runs, order=(0, 1, 2)):
    names = [f"{number:02d}" for number in range(len(runs))]
    columns = [
        {n: "".join(row[i] for row in rows) for n, rows in zip(names, runs, strict=True)}
        for i in order
    ]
    return [rater(f"r{i}", **column) for i, column in zip(order, columns, strict=True)]


def figures(runs, order=(0, 1, 2)):
    try:
        return agree(compare(raters_of(runs, order)), draws=50)
    except UsageError:
        return None


@settings(max_examples=40)
@given(st.lists(texts, min_size=1, max_size=5))
def test_agreement_does_not_depend_on_the_order_of_raters(runs):
    found, turned = figures(runs), figures(runs, (2, 1, 0))
    if found is None:
        assert turned is None
        return
    assert found.alpha == turned.alpha and found.kinds_alpha == turned.kinds_alpha
    by_names = {frozenset(pair.raters): pair for pair in turned.pairs}
    for pair in found.pairs:
        other = by_names[frozenset(pair.raters)]
        assert pair.kappa.value == other.kappa.value and pair.kappa.low == other.kappa.low
        assert pair.prevalence == other.prevalence[::-1]
        assert pair.kinds_kappa.value == other.kinds_kappa.value
        assert all(
            pair.confusion[a][b] == other.confusion[b][a]
            for a, row in pair.confusion.items()
            for b in row
        )


@settings(max_examples=40)
@given(st.lists(st.text("cpan", min_size=1, max_size=8), min_size=1, max_size=5))
def test_agreement_with_oneself_is_one_or_undefined(runs):
    said = {f"{number:02d}": text for number, text in enumerate(runs)}
    found = agree(compare([rater("ann", **said), rater("bob", **said)]), draws=50)
    (pair,) = found.pairs
    for figure in (pair.kappa, pair.kinds_kappa, found.alpha, found.kinds_alpha):
        assert (
            (figure.value == pytest.approx(1))
            if figure.why in (None, ONE)
            else (figure.value is None)
        )
    signs = "".join(runs)
    assert (pair.kappa.value is None) == (signs.count("n") in (0, len(signs)))
    assert pair.observed.value == 1


ONE = "one trajectory gives no interval"


@settings(max_examples=30)
@given(st.lists(texts, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_trajectories_changes_nothing(runs, random):
    raters = raters_of(runs)
    shuffled = []
    for one in raters:
        keys = list(one.said)
        random.shuffle(keys)
        shuffled.append(Rater(one.name, {key: one.said[key] for key in keys}))
    try:
        found = agree(compare(raters), draws=50)
    except UsageError:
        return
    assert agree(compare(shuffled), draws=50) == found


def test_intervals_are_by_trajectory_and_not_by_step():
    """Runs in which all steps agree or none: steps drawn singly would give too narrow intervals."""
    agreeing = {f"{n:02d}": "cn" * 10 for n in range(20)}
    first = rater("a", **agreeing)
    second = rater("b", **{k: text if int(k) % 2 else "nc" * 10 for k, text in agreeing.items()})
    (pair,) = agree(compare([first, second]), draws=4000).pairs
    # The mean of 20 fair coins: standard error 0.5/sqrt(20); by step it would be sqrt(20) smaller.
    half = 1.96 * 0.5 / math.sqrt(20)
    assert pair.observed.value == 0.5
    assert pair.observed.low == pytest.approx(0.5 - half, abs=0.04)
    assert pair.observed.high == pytest.approx(0.5 + half, abs=0.04)


def test_the_bootstrap_is_seeded_and_counts_undefined_draws():
    clusters = np.array([[1, 0], [0, 1], [0, 1]])
    share = lambda c: np.where(c[..., 1] > 0, c[..., 0] / np.maximum(c[..., 1], 1), np.nan)  # noqa: E731
    found = bootstrapped(clusters, share, draws=2000, seed=3)
    assert found == bootstrapped(clusters, share, draws=2000, seed=3)
    assert found != bootstrapped(clusters, share, draws=2000, seed=4)
    # All three draws take the first cluster with probability 1/27.
    assert found.lost_draws == pytest.approx(2000 / 27, abs=30)
    assert bootstrapped(clusters[1:2], share).why == ONE
    assert bootstrapped(clusters[:1], share, why="nothing there").why == "nothing there"


def test_a_selection_rates_every_step_that_the_runs_tell():
    run = craft_run(4)
    key = run.trajectory_id
    chosen = of_selections("sel", {key: Selection(key, (4, 6), "x")})
    other = of_selections("other", {key: Selection(key, (4,), "x")})
    with pytest.raises(UsageError, match="does not say which steps it left: name the traj"):
        compare([chosen, other])
    compared = compare([chosen, other], [run])
    (steps,) = compared.steps.values()
    assert [steps[i] for i in (4, 5, 6, 7)] == [
        (CRITICAL, CRITICAL),
        (NONE, NONE),
        (CRITICAL, NONE),
        (NONE, NONE),
    ]
    stray = of_selections("stray", {key: Selection(key, (2,), "x")})
    with pytest.raises(AtlasError, match=f"stray names step 2 of trajectory {key[:12]}"):
        compare([chosen, stray], [run])


def test_what_is_not_compared_is_counted():
    runs = [craft_run(2, task_id="a"), craft_run(2, task_id="b"), craft_run(2, "babyai", "c")]
    a, b, c = (run.trajectory_id for run in runs)
    ann = Rater("ann", {a: {4: CRITICAL, 5: NONE}, b: {4: NONE}, c: {4: CRITICAL}, "9": {1: NONE}})
    bob = Rater("bob", {a: {4: CRITICAL}, c: {4: NONE, 5: NONE}})
    compared = compare([ann, bob], runs)
    assert compared.without == (0, 1)
    assert (compared.alone, compared.not_in_runs, compared.steps_unrated) == (1, 1, 2)
    parts = agree_by_environment(compared)
    assert {name: part.steps for name, part in parts.items()} == {"babyai": 1, "textcraft": 1}
    with pytest.raises(UsageError, match="No step is rated by both of ann and bob and in the runs"):
        compare([ann, bob], [craft_run(3)])


def test_thresholds_cut_scores_and_leave_kinds():
    source = LabelSource("replay")
    labels = [
        StepLabel("t", 1, None, source, 0.2),
        StepLabel("t", 2, None, source, 0.7),
        StepLabel("t", 3, Kind.NONE, source, 0.9),
        StepLabel("t", 4, Kind.CRITICAL_ACTION, source, 0.1),
    ]
    assert list(of_labels("x", labels).said["t"].values()) == [CRITICAL, CRITICAL, NONE, ACTION]
    cut = of_labels("x", labels, threshold=0.2)
    assert list(cut.said["t"].values()) == [NONE, CRITICAL, NONE, ACTION]
