"""What goes wrong in one episode does not touch the others."""

import pytest

from agents.corridor import Corridor
from atlas_tune.agents.making import ConversationTooLong
from atlas_tune.agents.rollout import run_policy
from atlas_tune.environments.base import EnvironmentLost
from atlas_tune.errors import AtlasError, UsageError

TASKS = ["corridor/2", "corridor/3", "corridor/4"]


class Walking:
    """Walks on, and notes which tasks were asked about."""

    def __init__(self):
        self.asked = []

    def replies(self, conversations):
        self.asked.append([key.partition("#")[0] for key in conversations])
        return dict.fromkeys(conversations, "Action: forward")


def fragile(where, error, times=1, task="corridor/3"):
    """A corridor in which a task fails ``times`` times, in ``reset`` or in its second ``step``."""
    left = [times]

    class Fragile(Corridor):
        closed = 0

        def reset(self, *, seed=None, options=None):
            self.task, self.steps = options["task_id"], 0
            self.fail_in("reset")
            return super().reset(options=options)

        def step(self, action):
            self.steps += 1
            if self.steps == 2:
                self.fail_in("step")
            return super().step(action)

        def fail_in(self, place):
            if place == where and self.task == task and left[0]:
                left[0] -= 1
                raise error

        def close(self):
            Fragile.closed += 1

    return Fragile


def result(episodes):
    return [(e.success, len(e.turns), e.reward) for e in episodes]


@pytest.mark.parametrize("where", ["reset", "step"])
@pytest.mark.parametrize("error", [RuntimeError("boom"), EnvironmentLost("gone")])
def test_a_task_that_fails_once_is_run_again_when_the_others_have_ended(where, error):
    made, policy = fragile(where, error), Walking()
    episodes = run_policy(made, TASKS, policy, max_steps=8)
    assert result(episodes) == [(True, 2, 1.0), (True, 3, 1.0), (True, 4, 1.0)]
    assert [episode.error for episode in episodes] == [None] * 3
    assert policy.asked[-3:] == [["corridor/3"]] * 3
    assert "corridor/3" not in policy.asked[3]
    assert made.closed == 4, "every environment is closed, that of the failed try too"


@pytest.mark.parametrize(("where", "turns"), [("reset", 0), ("step", 1)])
def test_a_task_that_fails_twice_breaks_off_and_the_others_go_on(where, turns):
    made = fragile(where, RuntimeError("boom"), times=2)
    episodes = run_policy(made, TASKS, Walking(), max_steps=8)
    assert result(episodes) == [(True, 2, 1.0), (False, turns, 0.0), (True, 4, 1.0)]
    assert episodes[1].error == "environment failed: RuntimeError: boom"
    assert all(episode.ended for episode in episodes)


def test_what_it_had_earned_does_not_count_for_a_run_that_broke_off():
    class Paying(Corridor):
        def step(self, action):
            if self.left == 1:
                raise RuntimeError
            observation, _, *rest = super().step(action)
            return observation, 0.5, *rest

    (episode,) = run_policy(Paying, ["corridor/3"], Walking(), max_steps=8)
    assert [reward for _, _, reward in episode.turns] == [0.5, 0.5]
    assert (episode.reward, episode.success) == (0.0, False)
    assert episode.trajectory({"name": "a", "version": "1"}).outcome.reward == 0.0


def test_one_task_that_cannot_be_started_is_told_and_the_others_run():
    made = fragile("reset", AtlasError("no such world"), times=9, task="corridor/2")
    episodes = run_policy(made, TASKS, Walking(), max_steps=8)
    assert [episode.error for episode in episodes] == [
        "environment failed: no such world",
        None,
        None,
    ]


def test_a_set_up_in_which_nothing_starts_stops_at_once():
    class Away(Corridor):
        tries = 0

        def reset(self, *, seed=None, options=None):
            Away.tries += 1
            raise AtlasError("the server does not answer")

    with pytest.raises(AtlasError, match=r"No task could be started.*the server does not answer"):
        run_policy(Away, ["corridor/1"] * 9, Walking(), max_steps=8)
    assert Away.tries == 3


def test_an_environment_that_is_lost_while_it_is_made_is_made_once_more():
    lost = [EnvironmentLost("its process died")] * 2

    def made():
        if len(lost) % 2 == 0 and lost:
            raise lost.pop()
        return Corridor()

    (episode,) = run_policy(made, ["corridor/1"], Walking(), max_steps=8)
    assert (episode.success, episode.error) == (True, None)


@pytest.mark.parametrize(
    ("error", "raised", "told"),
    [
        (UsageError("no such task"), UsageError, "no such task"),
        (ModuleNotFoundError("x", name="minigrid"), AtlasError, "needs the package 'minigrid'"),
    ],
)
def test_what_no_other_try_would_mend_stops_at_once(error, raised, told):
    with pytest.raises(raised, match=told):
        run_policy(fragile("step", error), TASKS, Walking(), max_steps=8)


def test_a_conversation_that_is_too_long_ends_alone_and_is_not_tried_again():
    class Reading(Walking):
        """Has room for the opening and two turns."""

        def replies(self, conversations):
            long = [key for key, said in conversations.items() if len(said) > 7]
            if long:
                raise ConversationTooLong("500 tokens exceed the 400", tuple(long))
            return super().replies(conversations)

    policy = Reading()
    episodes = run_policy(Corridor, ["corridor/1", "corridor/4"], policy, max_steps=8)
    assert result(episodes) == [(True, 1, 1.0), (False, 3, 0.0)]
    assert episodes[1].error == "conversation too long: 500 tokens exceed the 400"
    assert len(policy.asked) == 3


def test_an_error_of_the_policy_stops_everything():
    class Silent:
        def replies(self, conversations):
            raise ConversationTooLong("too long, and nobody knows which")

    with pytest.raises(ConversationTooLong):
        run_policy(Corridor, TASKS, Silent(), max_steps=8)
