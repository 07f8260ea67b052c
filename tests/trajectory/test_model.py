import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_tune.trajectory import (
    InvalidTrajectory,
    Observation,
    ObservationResult,
    Step,
    ToolCall,
    Trajectory,
    dump_trajectory,
    parse_trajectory,
)
from trajectory.runs import craft_run

# Everything that a Python string can hold, lone surrogates and line separators among it.
TEXTS = st.text(st.characters(exclude_categories=()), max_size=40)
JSON = st.dictionaries(TEXTS, st.integers() | TEXTS | st.none() | st.booleans(), max_size=3)
CALLS = st.builds(ToolCall, TEXTS, TEXTS, JSON)
OBSERVATIONS = st.builds(
    Observation,
    st.lists(st.builds(ObservationResult, st.none() | TEXTS, st.none() | TEXTS), max_size=3).map(
        tuple
    ),
)


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    sources = [*draw(st.lists(st.sampled_from(["system", "user", "agent"]), max_size=5)), "agent"]
    steps = []
    for number, source in enumerate(sources, start=1):
        agent = source == "agent"
        steps.append(
            Step(
                number,
                source,
                draw(TEXTS),
                reasoning_content=draw(st.none() | TEXTS) if agent else None,
                tool_calls=tuple(draw(st.lists(CALLS, max_size=2))) if agent else (),
                observation=draw(st.none() | OBSERVATIONS) if agent else None,
                is_copied_context=agent and number < len(sources) and draw(st.booleans()),
                extra=draw(st.none() | JSON.filter(bool)),
            )
        )
    return Trajectory.create(tuple(steps), environment=draw(st.none() | TEXTS))


@given(trajectories())
def test_a_trajectory_survives_its_json(trajectory):
    text = json.dumps(dump_trajectory(trajectory))
    assert parse_trajectory(json.loads(text)) == trajectory


@given(trajectories())
def test_the_id_depends_on_the_content_alone(trajectory):
    again = Trajectory.create(trajectory.steps, extra=trajectory.extra, agent=trajectory.agent)
    assert again.trajectory_id == trajectory.trajectory_id
    first = dataclasses.replace(trajectory.steps[0], message=trajectory.steps[0].message + "x")
    changed = Trajectory.create((first, *trajectory.steps[1:]), extra=trajectory.extra)
    assert changed.trajectory_id != trajectory.trajectory_id


def test_copied_context_is_not_a_step_of_the_agent():
    run = craft_run(steps=4)
    assert [step.step_id for step in run.agent_steps] == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": None}, "has no 'steps'"),
        ({"steps": "x"}, "'steps' as a text, not a list"),
        ({"agnet": {}}, "unknown field 'agnet'"),
        ({"notes": "edited"}, "edited after it was written"),
        ({"steps": [{"step_id": 1, "source": "robot", "message": ""}]}, "source 'robot'"),
        (
            {"steps": [{"step_id": True, "source": "user", "message": ""}]},
            "as true or false, not a whole number",
        ),
        ({"steps": [{"step_id": 2, "source": "agent", "message": ""}]}, "numbered 1..1"),
        ({"steps": [{"step_id": 1, "source": "user", "message": ""}]}, "no agent step"),
    ],
)
def test_a_bad_record_is_refused_with_its_reason(change, sentence):
    record = {**dump_trajectory(craft_run()), **change}
    with pytest.raises(InvalidTrajectory, match=sentence):
        parse_trajectory(record)


def test_a_record_that_is_no_object_is_refused():
    with pytest.raises(InvalidTrajectory, match="found a list"):
        parse_trajectory([1])
