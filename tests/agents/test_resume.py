"""Episodes that start inside a recorded run."""

import subprocess
import sys

import pytest

from agents.corridor import Corridor
from atlas_tune.agents.react import format_turn
from atlas_tune.agents.resume import (
    Attempt,
    CannotResume,
    Ending,
    Place,
    Rollouts,
    conversation,
    play_recorded,
    resume,
)
from atlas_tune.agents.rollout import run_expert
from atlas_tune.agents.streams import stream_of
from atlas_tune.environments.babyai import BabyAI
from atlas_tune.environments.textcraft import TextCraft
from atlas_tune.errors import UsageError
from atlas_tune.trajectory import Observation, Step, ToolCall, Trajectory
from atlas_tune.trajectory.messages import to_messages
from atlas_tune.trajectory.store import read_trajectories
from shared_data import shared_data

GO = format_turn("I go on.", "forward")


class Tolled(Corridor):
    """A corridor that pays 0.25 for every cell, and 1 at its end."""

    name = "tolled"

    def step(self, action):
        observation, reward, done, truncated, info = super().step(action)
        return observation, reward + 0.25 * info["valid"], done, truncated, info


class Scripted:
    """Gives one answer to all, and notes the keys it was asked under."""

    def __init__(self, reply=GO):
        self.reply, self.asked, self.seen = reply, [], {}

    def replies(self, conversations):
        self.asked.append(sorted(conversations))
        self.seen.update({key: list(said) for key, said in conversations.items()})
        return dict.fromkeys(conversations, self.reply)


def walk(cells, env=Corridor):
    """The expert's run through a corridor."""
    world = env()
    return run_expert(world, f"corridor/{cells}", world.expert, 20).trajectory({"name": "expert"})


def rollouts(env=Corridor, batch_size=8, max_steps=None):
    return Rollouts(lambda name: env(), batch_size, max_steps)


def test_a_place_shows_the_recorded_conversation_up_to_it():
    run = walk(2)
    messages = list(to_messages(run).messages)
    # Instruction, prefill, observation; then two steps with their answers.
    assert [len(conversation(Place(run, t))) for t in range(3)] == [3, 5, 7]
    assert conversation(Place(run, 1)) == messages[:5]
    assert messages[3]["content"] == GO


@pytest.mark.parametrize("steps", [-1, 3])
def test_a_run_has_no_place_beyond_its_steps(steps):
    with pytest.raises(ValueError, match="a run of 2 steps has no place after"):
        Place(walk(2), steps)


def test_an_episode_goes_on_from_where_the_recorded_steps_lead():
    run = walk(4)
    policy = Scripted()
    attempts = [Attempt(Place(run, t), "s") for t in (3, 0, 4, 1)]
    # From each place the rest of the four cells; the end of the run needs nothing.
    assert rollouts().play(attempts, policy) == [
        Ending(1.0, True, 1),
        Ending(1.0, True, 4),
        Ending(1.0, True, 0),
        Ending(1.0, True, 3),
    ]
    assert [len(keys) for keys in policy.asked] == [3, 2, 2, 1]
    assert {stream_of(key) for keys in policy.asked for key in keys} == {"s"}
    last = max(policy.seen.values(), key=len)
    assert last == list(to_messages(run).messages)[: len(last)]


def test_the_return_includes_what_the_recorded_steps_earned():
    run = walk(3, Tolled)
    attempts = [Attempt(Place(run, t), "s") for t in range(4)]
    whole = [e.reward for e in rollouts(Tolled).play(attempts, Scripted())]
    assert whole == [1.75, 1.75, 1.75, 1.75]
    idle = [e.reward for e in rollouts(Tolled).play(attempts, Scripted("Action: wait"))]
    assert idle == [0.0, 0.25, 0.5, 1.75]


def test_the_step_limit_counts_recorded_steps_and_leaves_one_turn():
    run = walk(12)
    policy = Scripted("Action: wait")
    places = [Place(run, t) for t in (0, 6, 8, 11)]
    attempts = [Attempt(place, "s") for place in places]
    # The corridor's limit is 8.
    assert [e.turns for e in rollouts().play(attempts, policy)] == [8, 2, 1, 1]
    assert [rollouts(max_steps=10).turns_left(place) for place in places] == [10, 4, 2, 1]


def test_batches_change_nothing_and_environments_are_used_again():
    run = walk(4)
    attempts = [Attempt(Place(run, t), str(i)) for i in range(3) for t in range(4)]
    whole = rollouts().play(attempts, Scripted())
    built = []

    def build(name):
        built.append(name)
        return Corridor()

    small = Rollouts(build, batch_size=2)
    assert small.play(attempts, Scripted()) == small.play(attempts, Scripted()) == whole
    assert built == ["corridor"] * 2


def test_a_step_without_an_action_changes_nothing_but_the_conversation():
    steps = list(walk(2).steps)
    steps[3] = Step(4, "agent", "I think.", observation=Observation.of("Error."))
    run = Trajectory.create(tuple(steps), environment="corridor", task_id="corridor/2")
    stands = play_recorded(Corridor(), run)
    assert [stand.observation for stand in stands] == [
        "2 cells ahead.",
        "2 cells ahead.",
        "1 cells ahead.",
    ]
    assert not stands[-1].ended
    assert [m["content"] for m in resume(Corridor(), Place(run, 1)).messages()[-2:]] == [
        "I think.",
        "Error.",
    ]


def test_after_a_last_step_that_nothing_answers_the_environment_answers():
    steps = [*walk(3).steps[:3], Step(4, "agent", GO)]
    run = Trajectory.create(tuple(steps), environment="corridor", task_id="corridor/3")
    assert conversation(Place(run, 1))[-1]["role"] == "assistant"
    assert resume(Corridor(), Place(run, 1)).messages()[-1] == {
        "role": "user",
        "content": "2 cells ahead.",
    }


def test_a_resumed_run_is_a_trajectory_whose_recorded_steps_are_context():
    run = walk(3)
    episode = resume(Corridor(), Place(run, 1))
    episode.act(GO)
    made = episode.trajectory({"name": "scripted"})
    assert [step.message for step in made.agent_steps] == [GO]
    assert list(to_messages(made).messages) == episode.messages()
    assert (made.task_id, made.outcome.success) == ("corridor/3", False)


def test_what_cannot_be_resumed_says_why():
    calls = Trajectory.create(
        (Step(1, "user", "go"), Step(2, "agent", "", tool_calls=(ToolCall("c", "go", {}),))),
        environment="corridor",
        task_id="corridor/1",
    )
    with pytest.raises(CannotResume, match="step 2 acts through tool calls"):
        conversation(Place(calls, 0))
    unasked = Trajectory.create(
        (Step(1, "agent", GO),), environment="corridor", task_id="corridor/1"
    )
    with pytest.raises(CannotResume, match="begins with a step of the agent"):
        resume(Corridor(), Place(unasked, 0))
    nowhere = Trajectory.create((Step(1, "user", "go"), Step(2, "agent", GO)))
    with pytest.raises(CannotResume, match="names no environment"):
        rollouts().play([Attempt(Place(nowhere, 0), "s")], Scripted())
    taskless = Trajectory.create(nowhere.steps, environment="corridor")
    with pytest.raises(UsageError, match="names no task"):
        rollouts().play([Attempt(Place(taskless, 0), "s")], Scripted())


@pytest.mark.parametrize("world", [TextCraft, BabyAI])
def test_in_real_environments_every_place_stands_as_recorded(world):
    env = world()
    task = env.tasks("train")[1]
    run = run_expert(env, task, env.expert, env.max_steps).trajectory({"name": "expert"})
    stands = play_recorded(world(), run)
    told = [run.steps[2].message, *(step.observation.text for step in run.agent_steps)]
    assert [stand.observation for stand in stands] == told
    assert [stand.ended for stand in stands] == [False] * (len(told) - 1) + [True]
    # Whoever repeats the expert from any place ends as the expert did.
    for t in range(len(run.agent_steps)):
        episode = resume(env, Place(run, t))
        assert episode.messages() == list(to_messages(run).messages)[: 3 + 2 * t]
        for step in run.agent_steps[t:]:
            episode.act(step.message)
        assert (episode.success, episode.ended) == (True, True)
        assert episode.reward == pytest.approx(run.outcome.reward)


@pytest.mark.shared_data
def test_imported_textcraft_runs_stand_as_recorded(tmp_path):
    source = shared_data() / "agenttraj-l" / "textcraft.jsonl.xz"
    runs = tmp_path / "runs.jsonl"
    command = [sys.executable, "-m", "atlas_tune", "import", str(source), "-o", str(runs)]
    subprocess.run(command, check=True, capture_output=True)
    same = different = 0
    for run in read_trajectories(runs):
        stands = play_recorded(TextCraft(), run)
        assert stands[-1].success
        for step, stand in zip(run.agent_steps, stands[1:], strict=True):
            if step.observation is None:
                continue
            agrees = stand.observation in step.observation.text
            same, different = same + agrees, different + (not agrees)
    # Seven answers differ: recorded turns whose action is not the line behind "Action:".
    assert (same, different) == (2611, 7)
