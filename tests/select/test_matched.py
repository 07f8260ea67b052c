import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.recipe import load_recipe
from atlas_tune.select import Context, make_selector, select, selector_options
from atlas_tune.select.controls.controls import FirstSteps, RandomSteps
from atlas_tune.select.controls.matched_draw import NAT, Pool, greatest, greatest_in_histogram, lot
from atlas_tune.select.controls.positions import position_bin, position_histogram
from atlas_tune.select.controls.step_tokens import Characters, ModelTokens
from atlas_tune.trajectory import Observation, Selection, Step, Trajectory
from atlas_tune.tune.render import render_rows
from shared_data import shared_data
from tiny_model import tiny_llama, tiny_tokenizer


def run_of(lengths, task="1", environment=None):
    """Agent steps (ids 2 …) whose messages have these lengths in characters."""
    agent = (
        Step(i + 2, "agent", "x" * length, observation=Observation.of("seen"))
        for i, length in enumerate(lengths)
    )
    return Trajectory.create(
        (Step(1, "user", "Go."), *agent), task_id=task, environment=environment
    )


def runs_of(count, seed, environment=None):
    """Runs of 1 to 20 steps of 20 to 400 characters."""
    draw = random.Random(seed)
    return [
        run_of([draw.randint(20, 400) for _ in range(draw.randint(1, 20))], str(i), environment)
        for i in range(count)
    ]


def early_and_long(runs):
    """Of each run 30% of the steps: those that are long, and early rather than late."""
    chosen = []
    for run in runs:
        steps = run.agent_steps
        ranked = sorted(
            range(len(steps)), key=lambda i: -len(steps[i].message) + 300 * i / len(steps)
        )
        kept = ranked[: max(1, int(0.3 * len(steps)))]
        ids = tuple(sorted(steps[i].step_id for i in kept))
        chosen.append(Selection(run.trajectory_id, ids, "critical"))
    return chosen


def drawn(runs, other, **options):
    control = make_selector("random", options, Context(other=other, trajectories=runs))
    return {s.trajectory_id: s for s in select(runs, control).selections}


def by_id(selections):
    return {selection.trajectory_id: selection for selection in selections}


def characters(runs, selections):
    return sum(Characters()(run)[i] for run in runs for i in selections[run.trajectory_id].step_ids)


def numbers(selections):
    return {key: len(selection.step_ids) for key, selection in selections.items()}


def pool_of(lots, bins, wanted):
    """A pool of trajectories with these lots; bins and lots are nested alike."""
    trajectory = [n for n, own in enumerate(lots) for _ in own]
    flat = [np.array(list(itertools.chain(*rows)), np.int64) for rows in (bins, lots)]
    tokens = np.zeros(len(trajectory), np.int64)
    return Pool(np.array(trajectory, np.int64), *flat, tokens, np.array(wanted, np.int64))


def test_a_lot_is_a_gumbel_variable_in_whole_numbers():
    # -ln(-ln ½) = 0.366512920581664…, and e^-1 gives exactly 0.
    assert lot(0.5) == round(0.36651292058166432701 * NAT)
    assert abs(lot(math.exp(-1))) <= 1
    assert lot(0.0) < lot(1e-9) < lot(0.999)


def test_without_constraints_the_greatest_lots_of_each_trajectory_are_drawn():
    pool = pool_of([[5, 1, 9], [3, 4]], [[0, 0, 0], [0, 0]], [2, 1])
    assert greatest(pool, pool.lot_S).tolist() == [True, False, True, False, True]


@given(st.data())
def test_the_draw_in_a_histogram_is_the_best_of_all_that_have_it(data):
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    bins = [data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)) for n in sizes]
    lots = [
        data.draw(st.lists(st.integers(-(10**10), 10**10), min_size=n, max_size=n)) for n in sizes
    ]
    other = [data.draw(st.sets(st.integers(0, n - 1))) for n in sizes]
    pool = pool_of(lots, bins, [len(taken) for taken in other])
    histogram = [
        sum(bins[n][i] == part for n in range(len(sizes)) for i in other[n]) for part in range(3)
    ]

    def histogram_of(choice):
        return [
            sum(bins[n][i] == part for n, own in enumerate(choice) for i in own)
            for part in range(3)
        ]

    every = itertools.product(
        *(
            itertools.combinations(range(n), len(taken))
            for n, taken in zip(sizes, other, strict=True)
        )
    )
    sums = [
        sum(lots[n][i] for n, own in enumerate(choice) for i in own)
        for choice in every
        if histogram_of(choice) == histogram
    ]
    taken = greatest_in_histogram(pool, pool.lot_S, np.array(histogram, np.int64))
    assert int(pool.lot_S[taken].sum()) == max(sums)
    assert np.bincount(pool.bin_S[taken], minlength=3).tolist() == histogram
    assert np.bincount(pool.trajectory_S[taken], minlength=len(sizes)).tolist() == [
        len(taken) for taken in other
    ]


def test_positions_are_the_middles_of_steps():
    assert [position_bin(place, 5, 5) for place in range(5)] == [0, 1, 2, 3, 4]
    assert [position_bin(place, 2, 10) for place in range(2)] == [2, 7]
    assert position_bin(0, 1, 10) == 5
    run = run_of([1] * 4)
    chosen = {run.trajectory_id: Selection(run.trajectory_id, (2, 5), "")}
    assert position_histogram([run], chosen, bins=4) == [1, 0, 0, 1]


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(0, 999), st.integers(0, 99))
def test_positions_and_numbers_are_exactly_those_of_the_other_arm(count, data_seed, seed):
    runs = runs_of(count, data_seed)
    other = early_and_long(runs)
    control = drawn(runs, other, match="position", seed=seed)
    assert position_histogram(runs, control) == position_histogram(runs, by_id(other))
    assert numbers(control) == numbers(by_id(other))


def test_each_environment_keeps_its_own_positions():
    here, there = runs_of(20, 1, "babyai"), runs_of(20, 2, "textcraft")
    early = select(here, FirstSteps()).selections
    late = select(there, make_selector("last")).selections
    control = drawn([*here, *there], [*early, *late], match="position")
    assert position_histogram(here, control) == position_histogram(here, by_id(early))
    assert position_histogram(there, control) == position_histogram(there, by_id(late))


def test_a_plain_draw_has_other_positions_and_lengths_than_the_arm_it_is_held_against():
    # What the matched draws below are for.
    runs = runs_of(100, 3)
    other = early_and_long(runs)
    plain = by_id(select(runs, RandomSteps(0, other)).selections)
    assert position_histogram(runs, plain, 2) != position_histogram(runs, by_id(other), 2)
    assert characters(runs, plain) < 0.8 * characters(runs, by_id(other))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("match", ["tokens", ["position", "tokens"]])
def test_tokens_are_within_two_percent_and_numbers_stay(match, seed):
    runs = runs_of(100, 3)
    other = by_id(early_and_long(runs))
    control = drawn(runs, other.values(), match=match, seed=seed)
    assert characters(runs, control) == pytest.approx(characters(runs, other), rel=0.02)
    assert numbers(control) == numbers(other)
    if "position" in match:
        assert position_histogram(runs, control) == position_histogram(runs, other)


def test_shorter_steps_are_matched_as_well_as_longer_ones():
    runs = runs_of(100, 4)
    short = [
        Selection(
            run.trajectory_id, (min(run.agent_steps, key=lambda s: len(s.message)).step_id,), ""
        )
        for run in runs
    ]
    control = drawn(runs, short, match="tokens")
    assert characters(runs, control) == pytest.approx(characters(runs, by_id(short)), rel=0.02)


def test_few_steps_are_swapped_one_by_one_until_the_tokens_fit():
    # A tilt passes over the middle one of these lengths, whichever lots they have.
    run = run_of([100, 10, 50])
    for seed in range(10):
        other = [Selection(run.trajectory_id, (4,), "critical")]
        assert drawn([run], other, match="tokens", seed=seed)[run.trajectory_id].step_ids == (4,)


def test_tokens_that_are_not_reached_are_refused_with_the_nearest():
    # Totals are 190, 105, 100 and 15. From 100 no single swap comes nearer to 105.
    runs = [run_of([100, 10], "1"), run_of([90, 5], "2")]
    other = [Selection(runs[0].trajectory_id, (2,), ""), Selection(runs[1].trajectory_id, (3,), "")]
    refused = []
    for seed in range(20):
        loose = drawn(runs, other, match="tokens", seed=seed, tolerance=0.05)
        if characters(runs, loose) == 100:
            refused.append(seed)
        else:
            assert characters(runs, loose) == 105
    assert 0 < len(refused) < 20
    words = r"within 0.02 of the other arm's: the nearest has 100 supervised characters against 105"
    with pytest.raises(UsageError, match=words):
        drawn(runs, other, match="tokens", seed=refused[0])


def test_swaps_for_tokens_keep_positions():
    # Each half of the run has a long and a short step; 101 is 50 and 51, one of each half.
    run = run_of([50, 90, 51, 70])
    other = [Selection(run.trajectory_id, (2, 4), "")]
    for seed in range(10):
        control = drawn([run], other, match=["tokens", "position"], bins=2, seed=seed)
        assert control[run.trajectory_id].step_ids == (2, 4)


def test_the_draw_does_not_depend_on_the_order_of_runs_or_selections():
    runs = runs_of(30, 5, "babyai") + runs_of(30, 6)
    other = early_and_long(runs)
    for match in ("position", "tokens", ["tokens", "position"]):
        assert drawn(runs, other, match=match) == drawn(runs[::-1], other[::-1], match=match)


def test_seeds_are_different_draws_and_different_sources():
    runs = runs_of(30, 7)
    other = early_and_long(runs)
    one, two = (drawn(runs, other, match="position", seed=seed) for seed in (0, 1))
    assert {k: s.step_ids for k, s in one.items()} != {k: s.step_ids for k, s in two.items()}
    context = Context(other=other, trajectories=runs)
    options = [
        {"match": "position"},
        {"match": "position", "seed": 1},
        {"match": "position", "bins": 5},
        {"match": "tokens"},
        {"match": ["tokens", "position"]},
        {"match": "number"},
    ]
    sources = {make_selector("random", some, context).source for some in options}
    fewer = Context(other=other, trajectories=runs[1:])
    sources.add(make_selector("random", {"match": "position"}, fewer).source)
    assert len(sources) == 7
    # How far off tokens may be says whether a draw is refused, not which one it is.
    loose = make_selector("random", {"match": "tokens", "tolerance": 0.5}, context).source
    assert loose in sources


def test_the_draw_is_the_same_on_every_machine():
    # A literal: a change here changes every published selection.
    lengths = [20, 90, 40, 30, 80, 60, 50, 70, 100, 10]
    runs = [Trajectory(letter * 64, run_of(lengths).steps) for letter in "abc"]
    other = [Selection(run.trajectory_id, (2, 3, 9), "") for run in runs]
    control = drawn(runs, other, match=["position", "tokens"], bins=2)
    found = {key[0]: selection.step_ids for key, selection in control.items()}
    assert found == {"a": (5, 6, 10), "b": (4, 6, 7), "c": (2, 5, 10)}


def test_steps_that_the_other_arm_took_too_say_so_and_their_share_is_told(capsys):
    run = run_of([50, 50])
    other = [Selection(run.trajectory_id, (2,), "critical")]
    control = make_selector(
        "random", {"match": "position"}, Context(other=other, trajectories=[run])
    )
    # Each half holds one step, so the other arm's step is all that has its position.
    one, two = control.label(run)
    assert (one.kind, one.reason) == (None, "selected by the other arm too")
    assert (two.kind, two.reason) == ("none", None)
    told = capsys.readouterr().err
    assert "1 steps drawn, 100% of them in the other arm too (so little is left" in told


def test_a_draw_with_enough_to_draw_from_is_called_a_control(capsys):
    runs = [run_of([50] * 20, str(task)) for task in range(20)]
    other = [Selection(run.trajectory_id, (2, 3, 4), "critical") for run in runs]
    drawn(runs, other, match="tokens")
    assert "60 steps drawn" in (told := capsys.readouterr().err)
    assert "hardly a control" not in told


def test_runs_without_a_selection_or_outside_the_draw_are_named():
    one, two, three = runs_of(3, 8)
    other = [s for s in early_and_long([one, two, three]) if s.trajectory_id != two.trajectory_id]
    control = make_selector(
        "random", {"match": "position"}, Context(other=other, trajectories=[one, two])
    )
    chosen = select([one, two, three], control)
    assert [s.trajectory_id for s in chosen.selections] == [one.trajectory_id]
    reasons = {missing.trajectory_id: missing.reason for missing in chosen.unlabelled}
    assert "other arm has no selection" in reasons[two.trajectory_id]
    assert "none of those that the draw was made over" in reasons[three.trajectory_id]


def test_a_selection_of_a_step_that_is_no_agent_step_leaves_its_run_out():
    good, bad = runs_of(2, 9)
    other = [*early_and_long([good]), Selection(bad.trajectory_id, (1,), "")]
    control = make_selector(
        "random", {"match": "position"}, Context(other=other, trajectories=[good, bad])
    )
    [missing] = select([good, bad], control).unlabelled
    assert "names step 1, which is not one of the agent's own steps" in missing.reason


def test_a_run_of_which_nothing_was_selected_gets_nothing():
    one, two = runs_of(2, 10)
    other = [Selection(one.trajectory_id, (), ""), *early_and_long([two])]
    assert (
        drawn([one, two], other, match=["position", "tokens"], tolerance=9)[
            one.trajectory_id
        ].step_ids
        == ()
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    place = tmp_path_factory.mktemp("tiny")
    tiny_llama().save_pretrained(place)
    tiny_tokenizer().save_pretrained(place)
    return str(place)


def test_tokens_are_those_that_training_supervises(tiny):
    run = run_of([3, 40, 7])
    counted = ModelTokens(tiny)(run)
    for step_id in (2, 3, 4):
        selection = Selection(run.trajectory_id, (step_id,), "")
        [row] = render_rows(tiny_tokenizer(), run, selection)
        assert counted[step_id] == row.supervised


def test_with_a_model_its_tokens_are_matched_and_named_in_the_source(tiny):
    runs = runs_of(40, 11)
    other = early_and_long(runs)
    context = Context(other=other, trajectories=runs, model=tiny)
    control = make_selector("random", {"match": "tokens"}, context)
    chosen = by_id(select(runs, control).selections)

    def tokens(selections):
        rows = [
            row
            for run in runs
            for row in render_rows(tiny_tokenizer(), run, selections[run.trajectory_id])
        ]
        return sum(row.supervised for row in rows)

    assert tokens(chosen) == pytest.approx(tokens(by_id(other)), rel=0.02)
    assert "tokens=tiny" in control.version and "/" not in control.version


def test_a_tokenizer_without_a_template_stops_the_run(tiny, tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    runs = runs_of(2, 12)
    context = Context(other=early_and_long(runs), trajectories=runs, model=str(tmp_path))
    with pytest.raises(AtlasError, match="has no chat template"):
        select(runs, make_selector("random", {"match": "tokens"}, context))


@pytest.mark.parametrize(
    ("options", "context", "words"),
    [
        ({"match": "position"}, Context(), "matches position of another arm, and no other arm is"),
        ({"match": "tokens"}, Context(other=()), "over all trajectories of a run and got none"),
        ({"match": "length"}, Context(), "Input should be 'number', 'position' or 'tokens'"),
        ({"match": []}, Context(), "at least 1 item"),
        ({"bins": 0}, Context(), "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_matched_is_said(options, context, words):
    with pytest.raises(UsageError, match=words):
        make_selector("random", options, context)


def test_number_alone_is_the_plain_control():
    runs = runs_of(5, 13)
    other = early_and_long(runs)
    assert drawn(runs, other) == by_id(select(runs, RandomSteps(0, other)).selections)
    assert selector_options("random", {"match": ["number"]}).needs_other is False


RECIPE = """
name: small
data: [{import: runs.jsonl}]
arms:
  - {name: critical, selector: first}
  - {name: control, selector: random, of: critical, options: {match: [position, tokens]}}
evaluate: {environments: [{environment: textcraft, tasks: 4}]}
"""


def test_a_recipe_refuses_a_matched_control_that_names_no_arm(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    assert load_recipe(path).arms[1].options == {"match": ["position", "tokens"]}
    path.write_text(RECIPE.replace(", of: critical", ""))
    with pytest.raises(UsageError, match="the arm 'control' needs 'of': the arm that it shall"):
        load_recipe(path)


@pytest.mark.shared_data
def test_real_runs_are_matched_in_position_and_tokens(tmp_path):
    from atlas_tune.trajectory.importing import import_files
    from atlas_tune.trajectory.store import read_trajectories

    store = tmp_path / "runs.jsonl"
    files = [shared_data() / "agenttraj-l" / f"{name}.jsonl.xz" for name in ("textcraft", "babyai")]
    import_files(files, store, None)
    runs = list(read_trajectories(store))
    other = by_id(early_and_long(runs))
    plain = by_id(select(runs, RandomSteps(0, other.values())).selections)
    control = drawn(runs, other.values(), match=["position", "tokens"])
    assert position_histogram(runs, control) == position_histogram(runs, other)
    assert position_histogram(runs, plain) != position_histogram(runs, other)
    assert characters(runs, control) == pytest.approx(characters(runs, other), rel=0.02)
    assert abs(characters(runs, plain) / characters(runs, other) - 1) > 0.05
    assert numbers(control) == numbers(other)
