import json

import pytest

from agents.corridor import Corridor
from atlas_tune.agents.opening import Opening
from atlas_tune.agents.style import TOOLS
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


def run(path, policy, tasks=TASKS, model="m", max_steps=5, make=Corridor, **more):
    return evaluate(
        make,
        tasks,
        policy,
        path,
        max_steps=max_steps,
        batch_size=2,
        agent={"name": "walking", "version": "1"},
        model={"model": model} if isinstance(model, str) else model,
        **more,
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


class Stuck:
    """Bumps into a wall for ever in task 9, and walks on in the others."""

    def replies(self, conversations):
        return {key: f"Action: {'sideways' if '/9' in key else 'forward'}" for key in conversations}


def test_an_episode_that_repeats_itself_ends_at_the_loop_limit(tmp_path):
    *others, stuck = run(tmp_path / "rollouts.jsonl", Stuck, loop_limit=3)
    assert [r.success for r in others] == [True] * 4, "what goes on is no loop"
    assert (stuck.success, stuck.turns, stuck.error) == (False, 3, None)
    with pytest.raises(AtlasError, match="another loop_limit"):
        run(tmp_path / "rollouts.jsonl", Stuck)


def test_the_same_words_with_another_answer_are_no_loop(tmp_path):
    rollouts = run(tmp_path / "rollouts.jsonl", Walking, loop_limit=2)
    assert [r.turns for r in rollouts] == [1, 2, 3, 4, 5]


def test_what_is_on_file_is_not_run_again(tmp_path):
    path = tmp_path / "rollouts.jsonl"
    first = run(path, Walking)
    assert run(path, lambda: pytest.fail("no model is needed")) == first


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": "other"}, "another model"),
        ({"max_steps": 4}, "max_steps"),
        ({"model": {"model": "m", "temperature": 1.0}}, "another temperature"),
        ({"opening": Opening.of("Walk!", "", "OK.")}, "another opening"),
    ],
)
def test_rollouts_of_another_model_or_limit_are_not_mixed_in(tmp_path, change, named):
    path = tmp_path / "rollouts.jsonl"
    run(path, Walking)
    with pytest.raises(AtlasError, match=named):
        run(path, Walking, **change)
    path.unlink()
    run(path, Walking, **change)


def test_what_was_sampled_is_not_gone_on_with_greedily(tmp_path):
    path = tmp_path / "rollouts.jsonl"
    run(path, Walking, model={"model": "m", "temperature": 1.0})
    with pytest.raises(AtlasError, match="another temperature"):
        run(path, Walking)
    with pytest.raises(AtlasError, match="another opening and tools"):
        run(path, Walking, model={"model": "m", "temperature": 1.0}, style=TOOLS)


def test_broken_settings_are_told(tmp_path):
    path = tmp_path / "rollouts.jsonl"
    run(path, Walking)
    settings_path(path).write_text("{")
    with pytest.raises(AtlasError, match="nobody can tell how"):
        run(path, Walking)


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


def breaking(tasks, where="step"):
    """A corridor in which these tasks always fail."""

    class Breaking(Corridor):
        def reset(self, *, seed=None, options=None):
            self.task = options["task_id"]
            if where == "reset" and self.task in tasks:
                raise RuntimeError("boom")
            return super().reset(options=options)

        def step(self, action):
            if self.task in tasks and self.left == 1:
                raise RuntimeError("boom")
            return super().step(action)

    return Breaking


def told(rollouts):
    return [(r.task_id, r.success, r.turns, r.error) for r in rollouts]


BOOM = "environment failed: RuntimeError: boom"


@pytest.mark.parametrize(("where", "turns"), [("step", 1), ("reset", 0)])
def test_a_run_that_breaks_off_is_kept_with_its_error(tmp_path, where, turns):
    path = tmp_path / "rollouts.jsonl"
    rollouts = run(path, Walking, make=breaking({"corridor/2"}, where))
    assert told(rollouts) == [
        ("corridor/1", True, 1, None),
        ("corridor/2", False, turns, BOOM),
        ("corridor/3", True, 3, None),
        ("corridor/4", True, 4, None),
        ("corridor/9", False, 5, None),
    ]
    assert (rollouts[1].trajectory is None) == (where == "reset")
    assert [len(rollout.steps) for rollout in rollouts] == [1, turns, 3, 4, 5]
    assert read_rollouts(path) == rollouts
    assert run(path, lambda: pytest.fail("errors are not run again unasked")) == rollouts


def test_errors_are_tried_again_where_asked_and_take_their_old_places(tmp_path):
    path, whole = tmp_path / "rollouts.jsonl", run(tmp_path / "whole.jsonl", Walking)
    run(path, Walking, make=breaking({"corridor/2", "corridor/4"}))
    some = run(path, Walking, retry_errors=True)
    assert some == whole
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_only_what_broke_off_is_tried_again(tmp_path):
    path = tmp_path / "rollouts.jsonl"
    made = breaking({"corridor/2", "corridor/4"})
    run(path, Walking, make=made)
    again = Walking()
    rollouts = run(path, lambda: again, make=breaking({"corridor/4"}), retry_errors=True)
    assert [r.error for r in rollouts] == [None, None, None, BOOM, None]
    assert [r.task_id for r in read_rollouts(path)] == TASKS
    assert again.calls == 2 + 2 * 4  # /2 once; /4 breaks off in its fourth turn, twice


def test_a_single_task_that_cannot_start_is_tried_again_without_ending_the_evaluation(tmp_path):
    class Refusing(breaking(())):
        def reset(self, *, seed=None, options=None):
            if options["task_id"] == "corridor/9":
                raise AtlasError("no such world")
            return super().reset(options=options)

    path = tmp_path / "rollouts.jsonl"
    for retry in (False, True):
        rollouts = run(path, Walking, make=Refusing, retry_errors=retry)
        assert rollouts[-1].error == "environment failed: no such world"


def test_files_from_before_errors_were_kept_are_read(tmp_path):
    path = tmp_path / "rollouts.jsonl"
    whole = run(path, Walking)
    old = [json.loads(line) for line in path.read_text().splitlines()]
    for row in old:
        del row["error"]
    path.write_text("".join(json.dumps(row) + "\n" for row in old))
    assert read_rollouts(path) == whole


def test_it_is_told_how_far_the_whole_has_come(tmp_path):
    seen = []
    path = tmp_path / "rollouts.jsonl"
    run(path, Walking, make=breaking({"corridor/2"}), on_standing=seen.append)
    assert seen[0].of == 5
    # The second batch: tasks 1 (solved) and 2 (broken off) are behind, 3 and 4 run together.
    second = [standing for standing in seen if standing.ended >= 2][-9:]
    third = next(standing for standing in seen if standing.solved == 2)
    assert (third.ended, third.errors, third.turn) == (3, 1, 3)
    assert str(third) == "tasks ended, 2 solved (67%), 1 broken off, turn 3"
    assert (second[-1].ended, second[-1].solved, second[-1].errors) == (5, 3, 1)
