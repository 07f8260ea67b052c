import json
import lzma

import pytest

from atlas_tune.trajectory import InvalidTrajectory, Selection
from atlas_tune.trajectory.exports import agentgym as exported
from atlas_tune.trajectory.formats import agentgym, read_file
from shared_data import shared_data

RECORD = {
    "item_id": "textcraft_7",
    "conversations": [
        {"from": "human", "loss": None, "value": "Rules."},
        {"from": "gpt", "loss": False, "value": "OK."},
        {"from": "human", "loss": None, "value": "Goal: craft stick."},
        {"from": "gpt", "loss": True, "value": "Thought:\nx\n\nAction:\ninventory"},
        {"from": "human", "loss": None, "value": "Nothing."},
        {"from": "gpt", "loss": True, "value": "Thought:\ny\n\nAction:\nget 1 stick"},
    ],
}


def test_only_turns_with_loss_are_steps():
    run = agentgym.read(RECORD)
    assert (run.environment, run.task_id) == ("textcraft", "textcraft_7")
    assert [s.message[-9:] for s in run.agent_steps] == ["inventory", "t 1 stick"]
    assert run.agent_steps[0].observation.text == "Nothing."
    assert exported.write(run) == RECORD


def test_a_selection_sets_loss():
    run = agentgym.read(RECORD)
    last = run.agent_steps[-1].step_id
    written = exported.write(run, Selection(run.trajectory_id, (last,), "test"))
    assert [t["loss"] for t in written["conversations"]] == [None, False, None, False, None, True]


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"messages": []}, "list 'conversations'"),
        ({"conversations": [{"from": "robot", "value": ""}]}, r"conversations\[0\] needs 'from'"),
        ({"conversations": [{"from": ["x"], "value": ""}]}, r"conversations\[0\] needs 'from'"),
        ({"conversations": [{"from": {}, "value": ""}]}, r"conversations\[0\] needs 'from'"),
        ({"conversations": ["x"]}, r"conversations\[0\] needs 'from'"),
        ({**RECORD, "item_id": ["x"]}, "'item_id' as a list, not a text"),
        ({"conversations": [{"from": "gpt"}]}, r"conversations\[0\] needs a text"),
        ({"conversations": [{"from": "human", "value": "hi"}]}, "no agent step"),
    ],
)
def test_a_bad_record_is_refused_with_its_reason(record, sentence):
    with pytest.raises(InvalidTrajectory, match=sentence):
        agentgym.read(record)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "trajectories", "steps"),
    [
        ("textcraft", 374, 2992),
        ("babyai", 810, 4642),
        ("sciworld", 2120, 42178),
        ("wordle", 955, 4055),
    ],
)
def test_agenttraj_l_imports_whole_and_is_written_back_the_same(name, trajectories, steps):
    path = shared_data() / "agenttraj-l" / f"{name}.jsonl.xz"
    runs = list(read_file(path, None, pytest.fail))
    assert len(runs) == trajectories
    assert sum(len(run.agent_steps) for run in runs) == steps
    with lzma.open(path) as stream:
        for run, line in zip(runs, stream, strict=True):
            assert exported.write(run) == json.loads(line)
