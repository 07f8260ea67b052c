"""Yardsticks read from files of their own shapes, and from the real data."""

import io
import json
import tarfile

import pytest

from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.select.auditing.ratings import CRITICAL
from atlas_tune.select.auditing.yardsticks import YARDSTICK_NAMES, load_yardstick, score_rises
from atlas_tune.trajectory import Step, Trajectory
from atlas_tune.trajectory.formats.reading import read_sources
from shared_data import shared_data


def marked(yardstick):
    """By task, the texts of the steps that the yardstick marks."""
    return {
        run.task_id: [
            step.message
            for step in run.agent_steps
            if yardstick.rater.said[run.trajectory_id][step.step_id] == CRITICAL
        ]
        for run in yardstick.runs
    }


@pytest.fixture
def data(tmp_path):
    (tmp_path / "yardsticks").mkdir()
    return tmp_path


def necessity(data, *games):
    path = data / "yardsticks" / "necessity_6games.jsonl"
    path.write_text("\n".join(map(json.dumps, games)), encoding="utf-8")


def game(**changed):
    actions = {"actions": ["look", "take", "put"], "necessary": [False, True, True]}
    return {"id": "g1", "won_full": True, **actions, **changed}


def test_necessity_marks_what_cannot_be_left_out(data):
    necessity(
        data,
        game(),
        game(id="short", necessary=[True]),
        game(id="lost", won_full=False),
        game(id="odd", necessary=[0, 1, "yes"]),
        [],
    )
    found = load_yardstick("necessity", data)
    assert marked(found) == {"g1": ["Action:\ntake", "Action:\nput"]}
    assert [bad.line for bad in found.left_out] == [2, 3, 4, 5]
    assert "one true or false in 'necessary'" in found.left_out[0].reason
    assert "not won by all of its actions" in found.left_out[1].reason
    assert found.polarity == "critical"


def test_nothing_usable_is_an_error_that_says_why(data):
    with pytest.raises(AtlasError, match="name the directory that holds 'yardsticks' with --data"):
        load_yardstick("necessity", data)
    necessity(data, game(won_full=False))
    with pytest.raises(AtlasError, match=r"holds no run .* is not won by all"):
        load_yardstick("necessity", data)
    with pytest.raises(UsageError, match="did you mean 'necessity'"):
        load_yardstick("necesity", data)


def who_and_when(data, **files):
    folder = data / "yardsticks" / "who-and-when"
    folder.mkdir()
    with tarfile.open(folder / "made-up.tar.xz", "w:xz") as tar:
        for name, record in files.items():
            text = record if isinstance(record, bytes) else json.dumps(record).encode()
            entry = tarfile.TarInfo(f"runs/{name}.json")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))


def failed(mistake):
    history = [
        {"name": "Planner", "role": "assistant", "content": "plan"},
        {"name": "Computer_terminal", "role": "user", "content": "exit 1"},
        {"name": "Coder", "role": "user", "content": "wrong"},
    ]
    return {
        "question": "why?",
        "question_ID": str(mistake),
        "history": history,
        "mistake_step": mistake,
    }


def test_who_and_when_counts_its_history_from_0_and_marks_errors(data):
    who_and_when(
        data,
        a=failed("2"),
        b=failed("1"),
        c=failed("3"),
        d=failed("-1"),
        e=failed("²"),
        f=failed(2),
        g=b"{",
        h=b"[" * 100_000,
    )
    found = load_yardstick("who-and-when", data)
    assert marked(found) == {"2": ["wrong"], "1": ["exit 1"]}
    assert found.polarity == "error"
    assert len(found.left_out) == 6
    assert all(run.outcome.success is False and len(run.agent_steps) == 3 for run in found.runs)
    assert found.runs[0].agent_steps[1].extra == {"name": "Computer_terminal", "role": "user"}


def test_a_damaged_archive_is_named(data):
    who_and_when(data, a=failed("2"))
    (archive,) = (data / "yardsticks" / "who-and-when").iterdir()
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(AtlasError, match=r"made-up.tar.xz cannot be read as an archive"):
        load_yardstick("who-and-when", data)


def web_step(score, matches=None, action="click[1]"):
    step = {
        "action": action,
        "task_score_rate": score,
        "url": "http://x",
        "trace_description": {"thought": "so", "action": "it"},
    }
    return step if matches is None else {**step, "match_result": matches}


def webcanvas(data, *runs):
    folder = data / "yardsticks" / "webcanvas"
    folder.mkdir()
    records = [
        {"task_id": number, "task_name": "buy", "step_list": steps}
        for number, steps in enumerate(runs)
    ]
    text = json.dumps([*records, {"index": 0, "task": "t", "evaluation": []}])
    (folder / "out.json").write_text(text, encoding="utf-8")


def test_webcanvas_marks_the_step_that_reached_the_node(data):
    page = "[{'url_included_match': 'cabelas.'}]"
    both = "[{'url_included_match': 'cabelas.'}, {'element_path_exactly_match': '#x'}]"
    webcanvas(
        data,
        [
            web_step(0.0, "[]", "search"),
            web_step(0.0, "[]", "open page"),
            web_step(0.5, page, "look"),
            web_step(1.0, both, "press"),
        ],
        [web_step(0.5, None, "first"), web_step(0.5, None, "x"), web_step(1.0, None, "y")],
        [web_step(0.0, "__import__('os')", "a"), web_step(1.0, "((((", "b")],
        [web_step(None)],
    )
    found = load_yardstick("webcanvas", data)
    # The page that "open page" led to is judged before "look" acts; the element that is pressed,
    # with its press. What no match explains is taken for a page.
    assert marked(found) == {"0": ["open page", "press"], "1": ["first", "x"], "2": ["a"]}
    assert [bad.reason[:22] for bad in found.left_out] == [
        "run 3: a step has no n",
        "1 records are tasks wi",
    ]


def test_score_rises_are_rewards_above_0_where_rewards_are_recorded():
    def run(*metrics):
        steps = [Step(n, "agent", "x", metrics=m) for n, m in enumerate(metrics, 1)]
        return Trajectory.create(tuple(steps))

    told = run({"reward": 0.5}, {"reward": 0}, {"reward": -1.0}, None, {"extra": {"reward": 1.0}})
    silent = run(None, {"prompt_tokens": 3}, {"reward": True}, {"extra": {"reward": "1"}})
    said = score_rises([told, silent]).said
    assert said == {told.trajectory_id: {1: CRITICAL, 2: "none", 3: "none", 5: CRITICAL}}


@pytest.mark.shared_data
def test_the_real_yardsticks():
    data = shared_data()
    counts = {}
    for name in YARDSTICK_NAMES:
        if name == "webcanvas":
            continue
        found = load_yardstick(name, data)
        steps = sum(map(len, found.rater.said.values()))
        counts[name] = (len(found.runs), steps, sum(map(len, marked(found).values())))
        assert found.left_out == ()
    assert counts["necessity"] == (6, 63, 30)
    assert counts["who-and-when"][0] == counts["who-and-when"][2] == 126
    assert counts["scienceworld"] == (104, 2557, 657)


@pytest.mark.shared_data
def test_scienceworld_runs_are_those_of_import():
    folder = shared_data() / "yardsticks" / "scienceworld-gold"
    imported = {found.trajectory.trajectory_id for found in read_sources([folder], None, print)}
    yardstick = load_yardstick("scienceworld", shared_data())
    assert {run.trajectory_id for run in yardstick.runs} == imported


@pytest.mark.shared_data
def test_tasks_of_webcanvas_without_runs_are_refused():
    folder = shared_data() / "yardsticks" / "webcanvas"
    if any("mind2web" not in path.name for path in folder.iterdir()):
        pytest.skip("there are result files beside the tasks")
    with pytest.raises(AtlasError, match="104 records are tasks without runs"):
        load_yardstick("webcanvas", shared_data())
