import json
from dataclasses import replace

import pytest

from atlas_tune.trajectory import Kind, LabelSource, Outcome, StepLabel, Trajectory
from atlas_tune.trajectory.files import read_runs
from atlas_tune.trajectory.sidecars import labels_beside
from atlas_tune.trajectory.store import (
    append_labels,
    read_labels,
    read_trajectories,
    write_trajectories,
)
from trajectory.runs import craft_run

FAILED = Trajectory.create(
    craft_run(2).steps, environment="textcraft", task_id="t2", outcome=Outcome(0.0, False)
)
UNKNOWN = Trajectory.create(craft_run(6).steps, environment="babyai", task_id="t3")
RUNS = [craft_run(), FAILED, UNKNOWN]


@pytest.fixture
def store(tmp_path):
    write_trajectories(tmp_path / "runs.jsonl", RUNS)
    return tmp_path / "runs.jsonl"


def runs_of(path):
    return list(read_runs(path, pytest.fail))


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--success"], [0]),
        (["--failure"], [1]),
        (["--min-reward", "0.5"], [0]),
        (["--max-reward", "0.5"], [1]),
        (["--environment", "babyai", "--environment", "textcraft"], [0, 1, 2]),
        (["--environment", "babyai"], [2]),
        (["--task", "t2"], [1]),
        (["--min-steps", "3", "--max-steps", "5"], [0]),
        (["--drop-unsuccessful"], [0, 2]),
        (["--drop-done-at-start"], [0, 1, 2]),
        ([], [0, 1, 2]),
    ],
)
@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_filter_keeps_what_meets_the_conditions(call, store, tmp_path, words, kept, name):
    code, printed, _ = call("filter", store, "-o", name, *words)
    assert code == 0
    assert runs_of(tmp_path / name) == [RUNS[index] for index in kept]
    assert f"{len(kept)} trajectories kept in {name}; {3 - len(kept)} left out" in printed


def test_filter_counts_every_reason_and_keeps_what_it_leaves_out(call, store, tmp_path):
    words = ["-o", "out.jsonl", "--rejected", "rest.parquet", "--success", "--json"]
    code, printed, _ = call("filter", store, *words)
    summary = json.loads(printed)
    assert (code, summary["kept"], summary["left_out"]) == (0, 1, 2)
    assert summary["reasons"] == {"no success": 1, "success not known": 1}
    assert runs_of(tmp_path / "rest.parquet") == [FAILED, UNKNOWN]


def test_filter_tells_how_many_are_kept_though_nothing_is_known(call, store):
    _, printed, told = call("filter", store, "-o", "out.jsonl", "--drop-unsuccessful")
    assert "1 left out: never succeeds" in printed
    assert "1 kept though nothing tells whether it succeeds" in told


def test_filter_in_place_and_with_nothing_left(call, store, tmp_path):
    assert call("filter", store, "-o", store, "--success")[0] == 0
    assert runs_of(store) == [RUNS[0]]
    code, _, told = call("filter", store, "-o", "out.jsonl", "--failure")
    assert code == 1
    assert "Nothing of" in told and "1 a success" in told
    assert not (tmp_path / "out.jsonl").exists()


def test_filter_refuses_what_would_lose_data(call, store):
    for target in ("out.jsonl", store):
        code, _, told = call("filter", store, "-o", "out.jsonl", "--rejected", target)
        assert (code, "would replace" in told) == (2, True)
    code, _, told = call("filter", store, "-o", "out.jsonl", "--replay")
    assert (code, "--replay judges runs for" in told) == (2, True)


def test_bad_records_go_to_the_quarantine_and_the_rest_is_sorted(call, store, tmp_path):
    with store.open("a") as stream:
        stream.write("{}\n" * 7)
    for command in ("filter", "dedupe"):
        code, _, told = call(command, store, "-o", "out.jsonl")
        assert (code, told.count("trajectory has no 'steps'")) == (3, 5)
        assert len((tmp_path / "out.jsonl.quarantine.jsonl").read_bytes().splitlines()) == 7
        assert runs_of(tmp_path / "out.jsonl") == RUNS
    code, _, _ = call("split", store, "-o", "parts", "--parts", "a=0.5,b=0.5", "--seed", 1)
    assert code == 3
    assert len((tmp_path / "parts" / "split.quarantine.jsonl").read_bytes().splitlines()) == 7


def test_a_replay_judges_runs_that_record_no_outcome(call, tmp_path):
    runs = tmp_path / "runs.jsonl"
    call("collect", "textcraft", "--tasks", 2, "-o", runs)
    first, second = read_trajectories(runs)

    def forget(run, steps):
        steps = tuple(replace(step, metrics=None) for step in steps)
        return Trajectory.create(steps, environment=run.environment, task_id=run.task_id)

    whole, cut = forget(first, first.steps), forget(second, second.steps[:-1])
    foreign = Trajectory.create(whole.steps, environment="nowhere")
    write_trajectories(runs, [whole, cut, foreign])
    words = ["--drop-unsuccessful", "--drop-done-at-start"]
    _, printed, _ = call("filter", runs, "-o", "kept.jsonl", *words, "--json")
    assert json.loads(printed)["unknown"]["whether it succeeds"] == 3
    _, printed, _ = call("filter", runs, "-o", "kept.jsonl", *words, "--replay", "--json")
    summary = json.loads(printed)
    assert (summary["replayed"], summary["reasons"]) == (2, {"never succeeds": 1})
    assert summary["unknown"] == {"whether it succeeds": 1, "whether it starts finished": 1}
    assert runs_of(tmp_path / "kept.jsonl") == [whole, foreign]


def test_dedupe_drops_repeats_and_tells_which(call, tmp_path):
    runs = tmp_path / "runs.jsonl"
    longer, other = craft_run(6), Trajectory.create(craft_run().steps, notes="the same words")
    write_trajectories(runs, [longer, craft_run(), other, craft_run()])
    for by, kept in (
        ("content", [longer, craft_run(), other]),
        ("messages", [longer, craft_run()]),
        ("task", [craft_run(), other]),
    ):
        code, printed, told = call("dedupe", runs, "-o", "out.jsonl", "--by", by)
        assert (code, runs_of(tmp_path / "out.jsonl")) == (0, kept)
        assert f"{len(kept)} trajectories kept in out.jsonl; {4 - len(kept)} left out" in printed
        assert told.count("left out") == 4 - len(kept)
        repeated = f"left out trajectory 4 ({craft_run().trajectory_id[:12]}), kept trajectory 2"
        assert repeated in told
    assert f"left out trajectory 1 ({longer.trajectory_id[:12]}), kept trajectory 2\n" in told
    code, _, told = call("dedupe", runs, "-o", "out.jsonl", "--by", "taks")
    assert (code, "did you mean 'task'?" in told) == (2, True)


def test_split_keeps_tasks_together_and_loses_nothing(call, tmp_path):
    runs = [craft_run(n, env, str(t)) for env in ("a", "b") for t in range(60) for n in (1, 2)]
    write_trajectories(tmp_path / "runs.jsonl", runs)
    code, printed, _ = call("split", "runs.jsonl", "-o", "parts", "--json")
    assert code == 0
    train, test = (runs_of(tmp_path / "parts" / f"{part}.jsonl") for part in ("train", "test"))
    assert sorted(r.trajectory_id for r in train + test) == sorted(r.trajectory_id for r in runs)
    assert not {(r.environment, r.task_id) for r in train} & {
        (r.environment, r.task_id) for r in test
    }
    told = json.loads(printed)["parts"]["test"]
    assert told["trajectories"] == len(test)
    assert told["environments"]["a"]["trajectories"] == 2 * told["environments"]["a"]["tasks"]
    _, printed, _ = call("split", "runs.jsonl", "-o", "again")
    assert "share of tasks" in printed
    again = tmp_path / "again" / "test.jsonl"
    assert again.read_bytes() == (tmp_path / "parts" / "test.jsonl").read_bytes()
    write_trajectories(
        tmp_path / "more.jsonl", [*runs, *(craft_run(1, "c", str(t)) for t in "xyz")]
    )
    call("split", "more.jsonl", "-o", "more")
    assert {r.trajectory_id for r in test} <= {
        r.trajectory_id for r in runs_of(tmp_path / "more" / "test.jsonl")
    }


def test_split_that_cannot_be_made_writes_nothing(call, store, tmp_path):
    code, _, told = call("split", store, "-o", "parts", "--parts", "a=0.999999,b=0.000001")
    assert (code, "No task falls into the part 'b'" in told) == (1, True)
    assert not list((tmp_path / "parts").iterdir())
    code, _, told = call("split", store, "-o", "parts", "--parts", "a=0.5,b=0.4")
    assert (code, "sum to 0.9, not to 1" in told) == (2, True)
    code, _, told = call("split", store, "-o", ".", "--parts", "runs=0.5,rest=0.5")
    assert (code, "would be replaced by one of its own parts" in told) == (2, True)


def test_a_part_that_lacks_an_environment_is_told_and_parquet_stays_parquet(call, tmp_path):
    runs = [craft_run(1, "many", str(t)) for t in range(40)] + [craft_run(1, "single")]
    write_trajectories(tmp_path / "runs.jsonl", runs)
    call("filter", "runs.jsonl", "-o", "runs.parquet")
    code, _, told = call("split", "runs.parquet", "-o", "parts")
    assert code == 0
    assert "has no task of single" in told
    names = sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert names == ["test.parquet", "train.parquet"]


def test_labels_go_along(call, store, tmp_path):
    source = LabelSource("import")
    labels = [StepLabel(run.trajectory_id, 4, Kind.NONE, source) for run in RUNS]
    append_labels(labels_beside(store), labels)
    call("filter", store, "-o", "out.jsonl", "--success", "--rejected", "rest.jsonl")
    assert list(read_labels(tmp_path / "out.jsonl.labels.jsonl")) == labels[:1]
    assert list(read_labels(tmp_path / "rest.jsonl.labels.jsonl")) == labels[1:]
    call("split", store, "-o", "parts", "--parts", "a=0.5,b=0.5", "--seed", 1)
    carried = []
    for part in "ab":
        ids = {run.trajectory_id for run in runs_of(tmp_path / "parts" / f"{part}.jsonl")}
        found = list(read_labels(tmp_path / "parts" / f"{part}.jsonl.labels.jsonl"))
        assert {label.trajectory_id for label in found} == ids
        carried += found
    assert len(carried) == 3
