import json
import lzma

import pytest

from atlas_tune.agents.react import format_turn
from atlas_tune.environments import make_environment
from atlas_tune.select.replaying.replayed import Replayer
from atlas_tune.trajectory import Outcome, Step, ToolCall, Trajectory
from atlas_tune.trajectory.filters import Verdict
from atlas_tune.trajectory.messages import from_messages
from shared_data import shared_data

OPENING = "Crafting commands:\ncraft 4 stick using 2 oak planks\n\nGoal: craft stick."


def sticks(*actions, environment="textcraft", outcome=None):
    """A run of these actions in a task that its opening holds whole."""
    own = (Step(n, "agent", format_turn("Go.", a)) for n, a in enumerate(actions, start=2))
    opening = Step(1, "user", OPENING)
    return Trajectory.create((opening, *own), environment=environment, outcome=outcome)


GOOD = ("get 2 oak planks", "craft 4 stick using 2 oak planks")


@pytest.mark.parametrize(
    ("run", "verdict", "replayed"),
    [
        (sticks(*GOOD), Verdict(True, False), 1),
        (sticks(GOOD[0]), Verdict(False, False), 1),
        (sticks(*GOOD, outcome=Outcome(None, False)), Verdict(False, False), 1),
        (sticks(*GOOD, environment="nowhere"), Verdict(None, None), 0),
        (sticks(*GOOD, environment=None), Verdict(None, None), 0),
        (sticks(*GOOD, environment="babyai"), Verdict(None, None), 0),
    ],
)
def test_a_replay_tells_what_the_run_does_not_record(run, verdict, replayed):
    replayer = Replayer(make_environment)
    assert (replayer.judge(run), replayer.replayed) == (verdict, replayed)


def test_runs_that_act_by_tool_calls_are_not_judged():
    run = Trajectory.create(
        (Step(1, "user", OPENING), Step(2, "agent", "", tool_calls=(ToolCall("c", "get", {}),))),
        environment="textcraft",
    )
    assert Replayer(make_environment).judge(run) == Verdict(None, None)


def test_what_is_recorded_needs_no_replay():
    steps = tuple(
        Step(n, "agent", format_turn("", action), metrics={"reward": float(n - 1)})
        for n, action in enumerate(GOOD, start=1)
    )
    run = Trajectory.create(steps, environment="textcraft", outcome=Outcome(1.0, False))
    replayer = Replayer(lambda name: pytest.fail("played"))
    replayer._environments["textcraft"] = make_environment("textcraft")
    assert replayer.judge(run) == Verdict(False, False)
    assert replayer.replayed == 0


def recorded_runs(name):
    """AgentTraj-L's runs of an environment, which record no outcome."""
    with lzma.open(shared_data() / "agenttraj-l" / f"{name}.jsonl.xz") as stream:
        for line in stream:
            record = json.loads(line)
            turns = record["conversations"]
            roles = {"human": "user", "gpt": "assistant"}
            messages = [{"role": roles[t["from"]], "content": t["value"]} for t in turns]
            copied = [t["from"] == "gpt" and t["loss"] is not True for t in turns]
            steps = from_messages(messages, copied)
            yield Trajectory.create(steps, environment=name, task_id=record["item_id"])


@pytest.mark.shared_data
@pytest.mark.parametrize(("name", "count"), [("textcraft", 374), ("babyai", 810)])
def test_every_run_of_agenttraj_l_succeeds_here_and_none_starts_finished(name, count):
    replayer = Replayer(make_environment)
    verdicts = [replayer.judge(run) for run in recorded_runs(name)]
    assert verdicts == [Verdict(True, False)] * count
    assert replayer.replayed == count
