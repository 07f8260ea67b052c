import datasets
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_tune.errors import AtlasError
from atlas_tune.trajectory import Selection
from atlas_tune.tune import tokenised
from atlas_tune.tune.render import render_rows
from atlas_tune.tune.rows import IGNORED
from atlas_tune.tune.tokenised import write_tokenised
from tiny_model import CHATML, tiny_tokenizer
from trajectory.runs import craft_run
from tune.tool_runs import tool_run


def select(run, *places):
    own = run.agent_steps
    return Selection(run.trajectory_id, tuple(own[i].step_id for i in places), "test")


def runs_and_selections(count=5):
    runs = [craft_run(steps=3 + i % 3, task_id=f"t{i}") for i in range(count)]
    return runs, {run.trajectory_id: select(run, 0, 2) for run in runs}


def load(output):
    """The dataset as its users load it."""
    if output.suffix == ".parquet":
        return datasets.Dataset.from_parquet(str(output), cache_dir=str(output.parent / "hf"))
    return datasets.load_from_disk(str(output))


def supervised_text(tokenizer, record):
    return tokenizer.decode([i for i in record["labels"] if i != IGNORED])


@pytest.mark.parametrize("name", ["rows.parquet", "rows"])
def test_the_labels_are_the_selected_steps_and_nothing_comes_after_them(tmp_path, name):
    tokenizer, (runs, selections) = tiny_tokenizer(), runs_and_selections()
    summary = write_tokenised(iter(runs), selections, tokenizer, tmp_path / name)
    found = load(tmp_path / name)
    assert found.column_names == [
        "input_ids",
        "attention_mask",
        "labels",
        "trajectory_id",
        "step_ids",
    ]
    assert len(found) == summary.rows == summary.trajectories == 5
    for run, record in zip(runs, found, strict=True):
        texts = [run.agent_steps[i].message + "<|im_end|>" for i in (0, 2)]
        assert supervised_text(tokenizer, record) == "".join(texts)
        assert record["trajectory_id"] == run.trajectory_id
        assert record["step_ids"] == [4, 6]
        assert record["attention_mask"] == [1] * len(record["input_ids"])
        assert record["labels"][-1] == tokenizer.eos_token_id
        assert len(record["labels"]) == len(record["input_ids"])
    assert summary.steps == 10
    assert summary.tokens == sum(len(r["input_ids"]) for r in found)
    assert summary.longest_row == max(len(r["input_ids"]) for r in found)
    assert summary.supervised_tokens == sum(i != IGNORED for r in found for i in r["labels"])
    assert summary.unselected == 0 and summary.left_out == []


@pytest.mark.parametrize("name", ["rows.parquet", "rows"])
def test_the_ids_can_be_declined(tmp_path, name):
    tokenizer, (runs, selections) = tiny_tokenizer(), runs_and_selections()
    write_tokenised(runs, selections, tokenizer, tmp_path / "both" / name)
    write_tokenised(runs, selections, tokenizer, tmp_path / name, with_ids=False)
    both, bare = load(tmp_path / "both" / name), load(tmp_path / name)
    assert bare.column_names == ["input_ids", "attention_mask", "labels"]
    assert bare.to_list() == both.remove_columns(["trajectory_id", "step_ids"]).to_list()


def test_without_selections_every_agent_step_carries_loss(tmp_path):
    tokenizer, run = tiny_tokenizer(), craft_run(steps=3)
    write_tokenised([run], None, tokenizer, tmp_path / "all.parquet")
    (record,) = load(tmp_path / "all.parquet")
    texts = [step.message + "<|im_end|>" for step in run.agent_steps]
    assert supervised_text(tokenizer, record) == "".join(texts)


def test_a_row_that_is_too_long_is_told_and_left_out_not_trimmed(tmp_path):
    tokenizer = tiny_tokenizer()
    short, long = craft_run(steps=1, task_id="s"), craft_run(steps=6, task_id="l")
    chosen = {run.trajectory_id: select(run, -1) for run in (short, long)}
    (row,) = render_rows(tokenizer, short, chosen[short.trajectory_id])
    limit = len(row.input_ids)
    summary = write_tokenised(
        [long, short], chosen, tokenizer, tmp_path / "r.parquet", max_tokens=limit
    )
    assert load(tmp_path / "r.parquet")["trajectory_id"] == [short.trajectory_id]
    (left,) = summary.left_out
    assert left.trajectory_id == long.trajectory_id and left.step_ids == (9,)
    assert f"more than max_tokens = {limit}" in str(left)
    with pytest.raises(AtlasError, match=r"No row is left.*more than max_tokens"):
        write_tokenised([short], chosen, tokenizer, tmp_path / "x.parquet", max_tokens=limit - 1)
    assert not (tmp_path / "x.parquet").exists()


def test_trajectories_without_a_selected_step_are_counted(tmp_path):
    runs, selections = runs_and_selections(3)
    del selections[runs[0].trajectory_id]
    selections[runs[1].trajectory_id] = Selection(runs[1].trajectory_id, (), "test")
    summary = write_tokenised(runs, selections, tiny_tokenizer(), tmp_path / "r.parquet")
    assert (summary.rows, summary.unselected) == (1, 2)


def test_a_template_that_cannot_hold_the_calls_costs_only_their_trajectories(tmp_path):
    plain, calling = craft_run(), tool_run()
    # CHATML writes no calls at all: the model would learn to say nothing.
    summary = write_tokenised([calling, plain], None, tiny_tokenizer(), tmp_path / "r.parquet")
    assert load(tmp_path / "r.parquet")["trajectory_id"] == [plain.trajectory_id]
    (left,) = summary.left_out
    assert left.trajectory_id == calling.trajectory_id
    assert "without its call of 'get_weather'" in left.reason


def test_a_template_that_forgets_gives_a_row_per_step(tmp_path):
    forgetful = CHATML.replace(
        "message['content'] +",
        "(message['content'] if loop.last or message['role'] != 'assistant' else '…') +",
    )
    tokenizer, run = tiny_tokenizer(forgetful), craft_run(steps=3)
    chosen = {run.trajectory_id: select(run, 0, 2)}
    summary = write_tokenised([run], chosen, tokenizer, tmp_path / "rows")
    assert (summary.rows, summary.trajectories, summary.steps) == (2, 1, 2)
    for record, place in zip(load(tmp_path / "rows"), (0, 2), strict=True):
        assert record["step_ids"] == [4 + place]
        message = run.agent_steps[place].message
        assert supervised_text(tokenizer, record) == message + "<|im_end|>"


@pytest.mark.parametrize("name", ["rows.parquet", "rows"])
def test_it_can_run_again_and_a_failure_leaves_the_old_output_whole(tmp_path, name):
    output, (runs, selections) = tmp_path / name, runs_and_selections()
    write_tokenised(runs, selections, tiny_tokenizer(), output)
    write_tokenised(runs[:2], selections, tiny_tokenizer(), output)
    assert len(load(output)) == 2

    def breaking():
        yield runs[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tokenised(breaking(), selections, tiny_tokenizer(), output)
    with pytest.raises(AtlasError, match="No row is left"):
        write_tokenised(runs, {}, tiny_tokenizer(), output)
    assert load(output)["trajectory_id"] == [run.trajectory_id for run in runs[:2]]
    assert {p.name for p in tmp_path.iterdir()} <= {name, "hf"}


def test_a_kill_between_the_two_moves_of_a_directory_loses_nothing(tmp_path):
    output, (runs, selections) = tmp_path / "rows", runs_and_selections()
    write_tokenised(runs, selections, tiny_tokenizer(), output)
    output.rename(tmp_path / "rows.old")
    with pytest.raises(AtlasError, match="No row is left"):
        write_tokenised(runs, {}, tiny_tokenizer(), output)
    assert len(load(output)) == len(runs)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "mine", "folder.parquet"])
def test_an_output_that_is_something_else_is_not_touched(tmp_path, name):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    (tmp_path / "folder.parquet").mkdir()
    runs, selections = runs_and_selections()
    with pytest.raises(AtlasError, match=name):
        write_tokenised(runs, selections, tiny_tokenizer(), tmp_path / name)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"


def test_rows_are_written_group_by_group(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenised, "TOKENS_PER_GROUP", 200)
    runs, selections = runs_and_selections(20)
    summary = write_tokenised(iter(runs), selections, tiny_tokenizer(), tmp_path / "r.parquet")
    file = pq.ParquetFile(tmp_path / "r.parquet")
    assert file.num_row_groups > 5
    assert file.metadata.num_rows == summary.rows == 20
    ids = file.read().column("trajectory_id").to_pylist()
    assert ids == [run.trajectory_id for run in runs]


def test_trajectories_are_written_while_they_stream_by(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenised, "TOKENS_PER_GROUP", 1_000)
    written = []

    def stream():
        for i in range(40):
            partial = tmp_path / "r.parquet.partial"
            written.append(partial.stat().st_size if partial.exists() else 0)
            yield craft_run(steps=8, task_id=str(i))

    summary = write_tokenised(stream(), None, tiny_tokenizer(), tmp_path / "r.parquet")
    groups = summary.tokens // (1_000 + summary.longest_row)
    assert len(set(written)) >= groups > 10


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4)), min_size=1, max_size=6))
def test_the_file_holds_what_the_own_trainer_trains(tmp_path_factory, shapes):
    output = tmp_path_factory.mktemp("rows") / "rows.parquet"
    tokenizer = tiny_tokenizer()
    runs = [craft_run(steps=n, task_id=str(i)) for i, (n, _) in enumerate(shapes)]
    chosen = {
        run.trajectory_id: select(run, place % n)
        for run, (n, place) in zip(runs, shapes, strict=True)
    }
    write_tokenised(runs, chosen, tokenizer, output)
    expected = [
        row for run in runs for row in render_rows(tokenizer, run, chosen[run.trajectory_id])
    ]
    found = pq.read_table(output).to_pylist()
    assert [tuple(r["input_ids"]) for r in found] == [row.input_ids for row in expected]
    assert [tuple(r["labels"]) for r in found] == [row.labels for row in expected]
