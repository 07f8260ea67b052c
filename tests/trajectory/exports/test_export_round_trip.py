"""Reading and writing are inverse, on what a format can hold."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_tune.trajectory import Selection
from atlas_tune.trajectory.exports import agentgym
from atlas_tune.trajectory.exports.dialects import DIALECTS
from atlas_tune.trajectory.exports.messages import write
from atlas_tune.trajectory.formats.llamafactory import FORMAT as LLAMAFACTORY
from atlas_tune.trajectory.formats.openai import FORMAT as OPENAI
from atlas_tune.trajectory.formats.sharegpt import FORMAT as SHAREGPT
from trajectory.exports.talks import run_of, talks


def read_back(record, format_):
    """The one trajectory of a record that went through a file."""
    record = json.loads(json.dumps(record))
    assert format_.detect(record)
    (found,) = format_.read(record, Path("x"))
    return found


def chosen(run, steps):
    return Selection(run.trajectory_id, tuple(sorted(steps)), "test")


def weights(run, steps):
    return {step.step_id: float(step.step_id in steps) for step in run.agent_steps}


@pytest.mark.parametrize("name", sorted(DIALECTS))
@given(st.data())
def test_what_is_written_for_a_trainer_reads_back_the_same(name, data):
    dialect = DIALECTS[name]
    free = dialect.arguments == "text"
    run, steps = data.draw(talks(reasoning=dialect.reasoning, any_arguments=free))
    record = write(run, dialect, chosen(run, steps), whole=True)
    found = read_back(record, LLAMAFACTORY if name == "llamafactory-v1" else OPENAI)
    assert found.trajectory.steps == run.steps
    assert found.trajectory.tools == run.tools
    assert dict(found.weights) == weights(run, steps)


@pytest.mark.parametrize("name", ["openai", "llamafactory-v1"])
@given(st.data())
def test_what_is_read_is_written_back_the_same(name, data):
    dialect = DIALECTS[name]
    run, steps = data.draw(talks(reasoning=dialect.reasoning, any_arguments=dialect.bare))
    record = write(run, dialect, chosen(run, steps), whole=True)
    record.pop("trajectory_id", None)
    found = read_back(record, LLAMAFACTORY if name == "llamafactory-v1" else OPENAI)
    again = write(found.trajectory, dialect, chosen(found.trajectory, steps), whole=True)
    again.pop("trajectory_id", None)
    assert again == record


@given(talks(calls=False), st.booleans())
def test_agentgym_reads_back_the_same(talk, prefilled):
    run, steps = talk
    opening = [
        {"role": "user", "content": "Rules."},
        {"role": "assistant", "content": "OK. I'll follow your instructions."},
        {"role": "user", "content": "Go."},
        {"role": "assistant", "content": "Action: go"},
    ]
    if prefilled:
        run = run_of(opening, copied=[False, True, False, False])
        steps = {4}
    elif run.agent_steps[0].message.startswith("OK"):
        return  # Such a turn is a prefill where it is masked out.
    record = agentgym.write(run, chosen(run, steps))
    found = read_back(record, SHAREGPT)
    assert found.trajectory.steps == run.steps
    assert dict(found.weights) == weights(run, steps)
    assert agentgym.write(found.trajectory, chosen(found.trajectory, steps)) == record
