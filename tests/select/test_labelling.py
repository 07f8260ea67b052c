import threading

import pytest

from atlas_tune.errors import AtlasError
from atlas_tune.select import CannotLabel, choose_all, label_all, select
from atlas_tune.select.base import Alone
from atlas_tune.select.controls.controls import FirstSteps, RandomSteps
from atlas_tune.select.stage import select_steps
from atlas_tune.sole_writer import sole_writer
from atlas_tune.trajectory import Kind, LabelSource, Step, StepLabel, Trajectory


def run_of(steps: int, task: str = "1") -> Trajectory:
    agent = (Step(i + 2, "agent", f"Action: {i}") for i in range(steps))
    return Trajectory.create((Step(1, "user", "Go."), *agent), task_id=task)


RUNS = [run_of(4, task) for task in "abcdef"]


class Picky(Alone):
    """Refuses some tasks and stops at others."""

    name = "picky"

    def __init__(self, refused="", fatal="", concurrency=1):
        self.refused, self.fatal, self.concurrency = refused, fatal, concurrency
        self.labelled = []

    def label(self, trajectory):
        if trajectory.task_id in self.refused:
            raise CannotLabel(f"task {trajectory.task_id} is refused")
        if trajectory.task_id in self.fatal:
            raise AtlasError("the server is gone")
        self.labelled.append(trajectory.task_id)
        return [
            StepLabel(trajectory.trajectory_id, s.step_id, None, self.source, score=0.5)
            for s in trajectory.agent_steps
        ]


def tasks(batches):
    names = {run.trajectory_id: run.task_id for run in RUNS}
    return [names[batch[0].trajectory_id] for batch in batches]


def test_labels_come_stamped_trajectory_by_trajectory():
    batches = []
    report = label_all(RUNS, FirstSteps(), batches.append)
    assert (report.labelled, report.skipped, report.unlabelled) == (6, 0, ())
    assert tasks(batches) == list("abcdef")
    assert all(label.created_at for batch in batches for label in batch)


def test_what_is_labelled_is_not_labelled_again():
    labels = []
    label_all(RUNS[:3], RandomSteps(0), labels.extend)
    batches = []
    report = label_all(RUNS, RandomSteps(0), batches.append, done=labels)
    assert (report.labelled, report.skipped) == (3, 3)
    assert tasks(batches) == list("def")
    assert label_all(RUNS, RandomSteps(1), batches.append, done=labels).skipped == 0


def test_a_trajectory_whose_labels_were_cut_by_a_kill_is_labelled_again():
    labels = []
    label_all(RUNS[:2], FirstSteps(), labels.extend)
    batches = []
    label_all(RUNS[:2], FirstSteps(), batches.append, done=labels[:-1])
    assert tasks(batches) == ["b"]


def test_a_trajectory_that_stands_twice_is_labelled_once():
    batches = []
    report = label_all([RUNS[0], RUNS[0]], FirstSteps(), batches.append)
    assert (report.labelled, report.skipped, len(batches)) == (1, 1, 1)
    assert len(select([RUNS[0], RUNS[0]], FirstSteps()).selections) == 1


def test_one_bad_trajectory_stops_nothing():
    batches = []
    report = label_all(RUNS, Picky(refused="bd"), batches.append)
    assert tasks(batches) == list("acef")
    assert [missing.reason for missing in report.unlabelled] == [
        "task b is refused",
        "task d is refused",
    ]


def test_the_end_of_everything_stops_and_keeps_what_was_there():
    batches = []
    with pytest.raises(AtlasError, match="the server is gone"):
        label_all(RUNS, Picky(fatal="d"), batches.append)
    assert tasks(batches) == list("abc")


def test_labels_under_way_are_handed_over_before_the_stop():
    batches = []
    with pytest.raises(AtlasError, match="the server is gone"):
        label_all(RUNS, Picky(fatal="b", concurrency=4), batches.append)
    assert tasks(batches)[0] == "a"
    assert {"c", "d"} <= set(tasks(batches))


class Slowest(Picky):
    """Labels only once ``concurrency`` trajectories are under way together."""

    def __init__(self, concurrency):
        super().__init__(concurrency=concurrency)
        self.barrier = threading.Barrier(concurrency, timeout=10)

    def label(self, trajectory):
        self.barrier.wait()
        return super().label(trajectory)


def test_several_are_under_way_at_once_and_come_in_order():
    batches = []
    label_all(RUNS[:3], Slowest(3), batches.append)
    assert tasks(batches) == list("abc")


def test_choosing_hears_one_source_and_its_corrections():
    run = run_of(10)
    labels = []
    for selector in (FirstSteps(), RandomSteps(0), RandomSteps(1)):
        label_all([run], selector, labels.extend)
    [plain] = choose_all([run], labels, FirstSteps())
    assert plain.step_ids == (2, 3, 4)

    first = next(label for label in labels if label.step_id == 2)
    ana = LabelSource("ana")
    correction = StepLabel(
        run.trajectory_id, 2, Kind.NONE, ana, created_at="2026-11-22", supersedes=first.label_id
    )
    [corrected] = choose_all([run], [*labels, correction], FirstSteps())
    assert corrected.step_ids == (3, 4, 5)
    assert choose_all([run], [*labels, correction], RandomSteps(1)) == choose_all(
        [run], labels, RandomSteps(1)
    )


def test_a_trajectory_without_labels_has_no_selection():
    assert choose_all(RUNS, [], FirstSteps()) == []


def test_a_sidecar_has_one_writer(tmp_path):
    labels, selection = tmp_path / "labels.jsonl", tmp_path / "chosen.jsonl"
    with sole_writer(labels), pytest.raises(AtlasError, match="Another process is writing"):
        select_steps(RUNS, Picky(), 0.3, labels, selection)
    assert not labels.exists() and not selection.exists()
    chosen, _ = select_steps(RUNS, Picky(), 0.3, labels, selection)
    assert len(chosen) == len(RUNS)
