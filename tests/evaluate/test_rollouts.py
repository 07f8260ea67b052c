import pytest

from agents.corridor import Corridor
from atlas_tune.errors import AtlasError
from atlas_tune.evaluate.rollouts import evaluate, read_rollouts, settings_path

TASKS = ["corridor/1", "corridor/2", "corridor/3", "corridor/4", "corridor/9"]


class Walking:
    """Walks on; is killed when it is asked for the n-th time."""

    def __init__(self, dies_at=None):
        self.calls, self.dies_at = 0, dies_at

    def replies(self, conversations):
        self.calls += 1
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        return dict.fromkeys(conversations, "Action: forward")


def run(path, policy, tasks=TASKS, model="m", max_steps=5):
    return evaluate(
        Corridor,
        tasks,
        policy,
        path,
        max_steps=max_steps,
        batch_size=2,
        agent={"name": "walking", "version": "1"},
        model={"model": model},
    )


def test_results_come_task_by_task_and_are_kept(tmp_path):
    path = tmp_path / "rollouts.jsonl"
    rollouts = run(path, Walking)
    assert [(r.task_id, r.success, r.turns) for r in rollouts] == [
        ("corridor/1", True, 1),
        ("corridor/2", True, 2),
        ("corridor/3", True, 3),
        ("corridor/4", True, 4),
        ("corridor/9", False, 5),
    ]
    assert rollouts[1].rewards == (0.0, 1.0)
    assert read_rollouts(path) == rollouts


def test_what_is_on_file_is_not_run_again(tmp_path):
    path = tmp_path / "rollouts.jsonl"
    first = run(path, Walking)
    assert run(path, lambda: pytest.fail("no model is needed")) == first


@pytest.mark.parametrize(
    ("change", "named"), [({"model": "other"}, "another model"), ({"max_steps": 4}, "max_steps")]
)
def test_rollouts_of_another_model_or_limit_are_not_mixed_in(tmp_path, change, named):
    path = tmp_path / "rollouts.jsonl"
    run(path, Walking)
    with pytest.raises(AtlasError, match=named):
        run(path, Walking, **change)
    path.unlink()
    run(path, Walking, **change)


def test_rollouts_of_unknown_making_are_not_gone_on_with(tmp_path):
    path = tmp_path / "rollouts.jsonl"
    run(path, Walking)
    settings_path(path).unlink()
    with pytest.raises(AtlasError, match="says how they were made, is gone"):
        run(path, Walking)


def test_a_killed_evaluation_goes_on_with_whole_batches(tmp_path):
    path, whole = tmp_path / "rollouts.jsonl", run(tmp_path / "whole.jsonl", Walking)
    with pytest.raises(KeyboardInterrupt):
        run(path, lambda: Walking(dies_at=4))
    assert [r.task_id for r in read_rollouts(path)] == TASKS[:2]
    with path.open("a") as stream:
        stream.write('{"environment": "corr')  # half a line, as a kill leaves it
    assert run(path, Walking) == whole
    assert read_rollouts(path) == whole
