import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_tune.errors import AtlasError
from atlas_tune.trajectory import (
    Observation,
    ObservationResult,
    Outcome,
    Step,
    ToolCall,
    Trajectory,
    dump_trajectory,
)
from atlas_tune.trajectory import parquet as ours
from atlas_tune.trajectory.parquet import read_parquet, write_parquet
from atlas_tune.trajectory.quarantine import BadRecord
from trajectory.generated import trajectories
from trajectory.runs import craft_run

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def calling_run(*arguments, text="look"):
    """A run of one call a step, with these arguments."""
    return Trajectory.create(
        tuple(
            Step(
                number,
                "agent",
                text,
                tool_calls=(ToolCall(f"c{number}", "search", given),),
                observation=Observation((ObservationResult("found", f"c{number}"),)),
            )
            for number, given in enumerate(arguments, start=1)
        ),
        outcome=Outcome(0.5, True),
    )


@settings(max_examples=60)
@given(runs=st.lists(trajectories(), max_size=4))
def test_reading_gives_back_what_was_written(tmp_path_factory, runs):
    path = tmp_path_factory.getbasetemp() / "generated.parquet"
    assert write_parquet(path, runs) == len(runs)
    read = list(read_parquet(path))
    assert read == runs
    # Equal is not the same in Python: 1 == 1.0 == True.
    assert json.dumps([dump_trajectory(run) for run in read], sort_keys=True) == json.dumps(
        [dump_trajectory(run) for run in runs], sort_keys=True
    )


def test_arrow_gives_no_call_the_arguments_of_another(tmp_path):
    run = calling_run({"query": "x"}, {"path": "/", "deep": {"a": [1, None]}}, {}, {"query": None})
    write_parquet(tmp_path / "runs.parquet", [run, craft_run()])
    steps = pq.read_table(tmp_path / "runs.parquet").to_pylist()[0]["steps"]
    assert [json.loads(step["tool_calls"][0]["arguments_json"]) for step in steps] == [
        {"query": "x"},
        {"path": "/", "deep": {"a": [1, None]}},
        {},
        {"query": None},
    ]
    assert next(read_parquet(tmp_path / "runs.parquet")) == run


def test_the_order_of_arguments_is_kept(tmp_path):
    run = calling_run({"z": 1, "a": 2})
    write_parquet(tmp_path / "runs.parquet", [run])
    (read,) = read_parquet(tmp_path / "runs.parquet")
    assert list(read.steps[0].tool_calls[0].arguments) == ["z", "a"]


def test_columns_can_be_queried_without_parsing(tmp_path):
    write_parquet(tmp_path / "runs.parquet", [craft_run(steps=3), calling_run({})])
    table = pq.read_table(tmp_path / "runs.parquet")
    assert table["environment"].to_pylist() == ["textcraft", None]
    assert table["reward"].to_pylist() == [1.0, 0.5]
    assert table["success"].to_pylist() == [True, True]
    assert table["agent_steps"].to_pylist() == [3, 1]
    assert table["exact"].to_pylist() == [None, None]
    assert table["steps"].to_pylist()[0][0]["message"] == "Craft things."


def test_half_a_surrogate_pair_survives_and_is_seen_in_its_row_alone(tmp_path):
    half = calling_run({"q": "\ud800"}, text="\udfff!")
    write_parquet(tmp_path / "runs.parquet", [half, craft_run()])
    assert list(read_parquet(tmp_path / "runs.parquet")) == [half, craft_run()]
    rows = pq.read_table(tmp_path / "runs.parquet").to_pylist()
    assert rows[0]["steps"][0]["message"] == "\ufffd!"
    assert [row["exact"] is None for row in rows] == [False, True]


def test_a_reward_beyond_a_double_is_kept(tmp_path):
    run = Trajectory.create((Step(1, "agent", "x"),), outcome=Outcome(10**400))
    write_parquet(tmp_path / "runs.parquet", [run])
    assert list(read_parquet(tmp_path / "runs.parquet")) == [run]


def test_row_groups_keep_memory_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(ours, "GROUP_ROWS", 3)
    runs = [craft_run(task_id=str(n)) for n in range(8)]
    write_parquet(tmp_path / "rows.parquet", runs)
    assert pq.ParquetFile(tmp_path / "rows.parquet").num_row_groups == 3
    monkeypatch.setattr(ours, "GROUP_CHARACTERS", 10)
    write_parquet(tmp_path / "texts.parquet", runs)
    assert pq.ParquetFile(tmp_path / "texts.parquet").num_row_groups == 8
    assert list(read_parquet(tmp_path / "texts.parquet")) == runs


def test_an_edited_row_is_rejected_with_its_number(tmp_path):
    path = tmp_path / "runs.parquet"
    write_parquet(path, [craft_run(task_id=str(n)) for n in range(3)])
    rows = pq.read_table(path).to_pylist()
    rows[1]["steps"][0]["message"] = "edited"
    rows[2]["agent_json"] = "no json"
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)
    rejected = []
    assert list(read_parquet(path, rejected.append)) == [craft_run(task_id="0")]
    assert [bad.line for bad in rejected] == [2, 3]
    assert "does not match trajectory_id" in rejected[0].reason
    assert "not as atlas-tune writes it" in rejected[1].reason
    with pytest.raises(BadRecord):
        list(read_parquet(path))


def test_other_files_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(AtlasError, match="There is no file"):
        list(read_parquet(tmp_path / "none.parquet"))
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(AtlasError, match="no Parquet file that can be read"):
        list(read_parquet(tmp_path / "text.parquet"))
    pq.write_table(pa.table({"messages": [["x"]]}), tmp_path / "foreign.parquet")
    with pytest.raises(AtlasError, match="has no column 'agent_json'"):
        list(read_parquet(tmp_path / "foreign.parquet"))


def test_a_damaged_row_group_costs_only_its_own_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(ours, "GROUP_ROWS", 1)
    path = tmp_path / "runs.parquet"
    runs = [craft_run(task_id=str(n), steps=30) for n in range(4)]
    write_parquet(path, runs)
    third = pq.ParquetFile(path).metadata.row_group(2)
    damaged = bytearray(path.read_bytes())
    for index in range(third.num_columns):
        column = third.column(index)
        start = column.dictionary_page_offset or column.data_page_offset
        size = column.total_compressed_size
        damaged[start : start + size] = b"\xff" * size
    path.write_bytes(damaged)
    rejected = []
    assert list(read_parquet(path, rejected.append)) == [*runs[:2], runs[3]]
    assert [bad.line for bad in rejected] == [3]
    assert "rows 3 to 3 cannot be read" in rejected[0].reason


def test_a_writer_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "runs.parquet"
    write_parquet(path, [craft_run()])

    def breaking():
        yield craft_run(task_id="new")
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write_parquet(path, breaking())
    assert list(read_parquet(path)) == [craft_run()]
    assert list(tmp_path.iterdir()) == [path]


def test_without_pyarrow_the_way_to_get_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(AtlasError, match=r"pip install 'atlas-tune\[parquet\]'"):
        write_parquet(tmp_path / "runs.parquet", [craft_run()])
