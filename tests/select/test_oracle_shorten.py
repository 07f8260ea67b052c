import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_tune.select import CannotLabel
from atlas_tune.select.oracle import OracleOptions, OracleSelector
from atlas_tune.select.oracle.counting import estimated_tokens
from atlas_tune.select.oracle.prompt import Part
from atlas_tune.select.oracle.shorten import SHORTEST, note_of, shortened
from atlas_tune.trajectory import Kind, Observation, Step, Trajectory
from scripted_server import ScriptedServer, good

ANSWER = json.dumps(
    {
        "plan": [{"subgoal": "win"}],
        "critical_steps": [
            {"step_id": 2, "kind": "critical_action", "reason": "r", "quote": "I try way 2."}
        ],
    }
)


def run_of(*lengths: int, words: int = 0) -> Trajectory:
    """One agent step for each observation; an observation of n characters counts to n."""
    steps = [Step(1, "user", "Win.")]
    for i, length in enumerate(lengths, start=2):
        text = "".join(f"{n:>9}," for n in range(0, length + 10, 10))[:length]
        said = f"I try way {i}." + " so" * words
        steps.append(Step(i, "agent", said, observation=Observation.of(text)))
    return Trajectory.create(tuple(steps))


def label(server: ScriptedServer, trajectory: Trajectory, **options):
    count = options.pop("count_tokens", estimated_tokens)
    checked = OracleOptions(model="m", base_url=server.url, **options)
    return OracleSelector(checked, count_tokens=count).label(trajectory)


def size(parts) -> int:
    return sum(len(part.text) + len(part.tail) for part in parts)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 3000)), min_size=1, max_size=12),
    st.integers(100, 9000),
)
def test_the_longest_observations_give_first_and_nothing_else_does(pieces, limit):
    parts = [
        Part("t", "".join(chr(65 + n % 57) for n in range(length)), is_observation=is_observation)
        for is_observation, length in pieces
    ]
    floor = sum(min(n, SHORTEST) if is_observation else n for is_observation, n in pieces)
    if floor > limit:
        with pytest.raises(CannotLabel, match=f"needs {floor:,} tokens .* {limit:,} are free"):
            shortened(parts, size, limit)
        return
    shown = shortened(parts, size, limit)
    assert size(shown) <= limit
    kept = {len(part.text) + len(part.tail) for part in shown if part.left_out}
    assert len(kept) <= 1
    for before, after in zip(parts, shown, strict=True):
        if not after.left_out:
            assert after == before
            continue
        assert before.is_observation
        [length] = kept
        assert len(before.text) > length >= SHORTEST
        assert before.text.startswith(after.text) and before.text.endswith(after.tail)
        assert abs(len(after.text) - len(after.tail)) <= 1
        assert len(after.text) + after.left_out + len(after.tail) == len(before.text)
    if kept:
        # As much as fits is shown: one character more of each would be too many.
        assert size(shown) + sum(bool(part.left_out) for part in shown) > limit
        whole = [len(p.text) for p in shown if p.is_observation and not p.left_out]
        assert max(whole, default=0) <= kept.pop()


def test_every_step_is_shown_and_the_labels_say_what_was_not():
    trajectory = run_of(50, 40_000, 300, 60_000)
    with ScriptedServer([good(ANSWER)] * 2) as server:
        labels = label(server, trajectory, context_tokens=12_000)
        whole = label(server, trajectory)
    short, full = (asked.body["messages"] for asked in server.asked)
    assert sum(len(m["content"]) for m in short) / 4 <= 12_000 - 4096
    user = short[1]["content"]
    for step in trajectory.steps[1:]:
        assert f"step {step.step_id}\nI try way {step.step_id}.\n" in user
    for i in (2, 4):
        assert trajectory.steps[i - 1].observation.text in user
    mark = user.split("\n")[0].removeprefix("BEGIN ")
    gaps = re.findall(rf"\n\[{mark}\] \[… ([\d,]+) characters left out …\]\n", user)
    assert len(gaps) == 2
    left_out = sum(int(gap.replace(",", "")) for gap in gaps)
    assert "left out" not in full[1]["content"]
    for i in (3, 5):
        text = trajectory.steps[i - 1].observation.text
        assert text[:5000] in user and text[-5000:] in user and text not in user
    note = f"the oracle saw 2 of 4 observations shortened, {left_out:,} characters left out"
    assert labels[0].reason == f"r ({note})"
    assert [label.reason for label in labels[1:]] == [note] * 3
    assert [label.reason for label in whole] == ["r", None, None, None]


def test_what_fits_is_sent_as_it_is():
    trajectory = run_of(900, 900)
    with ScriptedServer([good(ANSWER)] * 2) as server:
        assert label(server, trajectory, context_tokens=20_000)[0].reason == "r"
        label(server, trajectory)
    contents = [
        re.sub("[0-9a-f]{16}", "mark", json.dumps(a.body["messages"])) for a in server.asked
    ]
    assert contents[0] == contents[1]


def test_what_does_not_fit_even_so_is_refused_with_the_figures():
    for trajectory in (run_of(90_000, words=30_000), run_of(*[150] * 900)):
        with ScriptedServer([]) as server, pytest.raises(CannotLabel) as refused:
            label(server, trajectory, context_tokens=12_000)
        assert server.asked == []
        figures = re.findall(r"[\d,]+(?= tokens| are free)", str(refused.value))
        needed, free = (int(figure.replace(",", "")) for figure in figures)
        assert free == 12_000 - 4096 < needed


def test_a_tokenizer_of_the_users_own_decides():
    trajectory = run_of(3_000, 3_000)
    with ScriptedServer([good(ANSWER)] * 3) as server:
        options = {"context_tokens": 9_000, "max_tokens": 100}
        by_estimate = label(server, trajectory, **options)
        by_letters = label(server, trajectory, count_tokens=len, **options)
    assert by_estimate[0].reason == "r"
    assert "2 of 2 observations shortened" in by_letters[0].reason
    assert by_letters[0].kind is Kind.CRITICAL_ACTION
    assert by_letters[0].source != by_estimate[0].source
    assert sum(len(m["content"]) for m in server.asked[1].body["messages"]) <= 8_900


def test_the_second_question_fits_too():
    with ScriptedServer([good("No."), good(ANSWER)]) as server:
        label(server, run_of(9_000), context_tokens=9_000, max_tokens=100, count_tokens=len)
    first, second = (sum(len(m["content"]) for m in a.body["messages"]) for a in server.asked)
    assert 8_000 < first < second <= 8_900


def test_the_estimate_is_a_quarter_of_the_characters():
    assert [estimated_tokens("x" * n) for n in (0, 1, 4, 5)] == [0, 1, 1, 2]
    assert note_of([Part("t", "x", is_observation=True)]) is None
