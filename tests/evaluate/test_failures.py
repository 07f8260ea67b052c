"""Why an episode failed: one kind each, the first that fits."""

import pytest

from atlas_tune.agents.react import format_turn
from atlas_tune.agents.rollout import Episode
from atlas_tune.environments import make_environment
from atlas_tune.evaluate.failures import failure_of
from atlas_tune.evaluate.rollouts import rollout_of

TASK = "textcraft/stone-brick-stairs/d2/c6/0"
LIMIT = 6


def played(*replies, success=False, error=None):
    """An episode in which the agent said these replies, in the real environment."""
    episode = Episode.start(make_environment("textcraft"), TASK)
    for reply in replies:
        episode.act(reply)
    episode.success, episode.error = success, error
    return rollout_of(episode, {"name": "test"})


def acts(*actions):
    return [format_turn("I try.", action) for action in actions]


@pytest.mark.parametrize(
    ("replies", "kind"),
    [
        (["no action here", "nor here", *acts("inventory")], "format"),
        (acts("inventory", "inventory", "inventory"), "loop"),
        (acts("fly away", "sing", "inventory"), "invalid"),
        (acts(*(f"get {n} stone" for n in range(1, 7))), "step limit"),
        (acts("get 1 stone", "get 2 stone"), "wrong action"),
    ],
)
def test_each_kind(replies, kind):
    assert failure_of(played(*replies), LIMIT) == kind


def test_success_is_no_failure_and_an_error_comes_first():
    assert failure_of(played(*acts("inventory"), success=True), LIMIT) is None
    assert failure_of(played(error="the server is gone"), LIMIT) == "error"
    assert failure_of(played("nothing", error="the server is gone"), LIMIT) == "error"
