"""Which runs of a source reach the training set."""

import pytest

from atlas_tune.errors import AtlasError
from atlas_tune.pipeline.gathering import data_stage
from atlas_tune.pipeline.layout import Layout
from atlas_tune.recipe import load_recipe
from atlas_tune.trajectory.store import read_trajectories


def gathered(tmp_path, source, name="run"):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"name: small\ndata: [{source}]\narms: [{{name: all, selector: all}}]\n"
        "evaluate: {environments: [{environment: textcraft, tasks: 1}]}\n"
    )
    layout = Layout(tmp_path / name)
    layout.directory.mkdir()
    data_stage(load_recipe(path), layout).run()
    return list(read_trajectories(layout.trajectories))


def test_runs_of_an_expert_and_runs_on_file_obey_the_same_conditions(tmp_path):
    collect = "{collect: textcraft, tasks: 12%s}"
    everything = gathered(tmp_path, collect % "", "all")
    lengths = [len(run.agent_steps) for run in everything]
    assert min(lengths) < 4 < max(lengths)
    wanted = [run for run in everything if 4 <= len(run.agent_steps) <= 6]
    bounds = ", min_steps: 4, max_steps: 6"
    assert gathered(tmp_path, collect % bounds, "collected") == wanted
    store = tmp_path / "all" / "trajectories.jsonl"
    assert gathered(tmp_path, f"{{import: {store}{bounds}}}", "imported") == wanted
    drawn = gathered(tmp_path, collect % f"{bounds}, sample: 2", "drawn")
    assert len(drawn) == 2
    assert drawn == [run for run in wanted if run in drawn]
    again = gathered(tmp_path, f"{{import: {store}{bounds}, sample: 2}}", "again")
    assert again == drawn


def test_a_source_of_which_nothing_is_left_is_named_with_the_reasons(tmp_path):
    with pytest.raises(AtlasError, match=r"^None of the 3 runs of textcraft meets .*\(3 .*steps"):
        gathered(tmp_path, "{collect: textcraft, tasks: 3, min_steps: 90}")


def test_a_run_that_is_given_twice_is_used_once_and_told(tmp_path, capsys):
    runs = gathered(tmp_path, "{collect: textcraft, tasks: 4}", "first")
    store = tmp_path / "first" / "trajectories.jsonl"
    twice = gathered(tmp_path, f"{{collect: textcraft, tasks: 4}}, {{import: {store}}}", "twice")
    assert twice == runs
    assert "4 of the recipe's runs are the same as others" in capsys.readouterr().err
