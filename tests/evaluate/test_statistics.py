import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_tune.evaluate.statistics import exact_mcnemar, score_interval, wilson_interval


@pytest.mark.parametrize(
    ("successes", "tasks", "interval"),
    [
        (81, 263, (0.2553, 0.3662)),  # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0000, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_intervals_are_the_published_ones(successes, tasks, interval):
    assert wilson_interval(successes, tasks) == pytest.approx(interval, abs=5e-5)


def outcomes(wins, losses, both=3, neither=2):
    ours = [True] * wins + [False] * losses + [True] * both + [False] * neither
    theirs = [False] * wins + [True] * losses + [True] * both + [False] * neither
    return [{str(i): value for i, value in enumerate(column)} for column in (ours, theirs)]


@pytest.mark.parametrize(
    ("wins", "losses", "p_value", "verdict"),
    [
        (10, 0, 2 / 1024, "better"),
        (0, 10, 2 / 1024, "worse"),
        (5, 0, 2 / 32, "cannot tell"),  # five of five is not enough
        (9, 1, 2 * 11 / 1024, "better"),
        (3, 3, 1.0, "cannot tell"),
        (0, 0, 1.0, "cannot tell"),
    ],
)
def test_mcnemar_counts_only_tasks_that_differ(wins, losses, p_value, verdict):
    test = exact_mcnemar(*outcomes(wins, losses))
    assert test.p_value == pytest.approx(p_value)
    assert (test.wins, test.losses, test.ties, test.verdict) == (wins, losses, 5, verdict)


def test_with_several_seeds_a_task_counts_once():
    ours, theirs = {"a": 2 / 3, "b": 1.0, "c": 0.0}, {"a": 1 / 3, "b": 1.0, "c": 1 / 3}
    test = exact_mcnemar(ours, theirs)
    assert (test.wins, test.losses, test.ties) == (1, 1, 1)


def test_a_paired_test_needs_the_same_tasks():
    with pytest.raises(ValueError, match="same tasks"):
        exact_mcnemar({"a": True}, {"b": True})


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_an_interval_of_scores_holds_their_mean_and_has_a_width(values):
    low, high = score_interval(values)
    mean = sum(values) / len(values)
    assert 0 <= low <= mean + 1e-9 and mean - 1e-9 <= high <= 1
    assert high - low > 0.02
