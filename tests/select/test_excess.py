import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from one_by_one import plain_log_probs, saved_llama

from atlas_tune.agents.local_model import load_model
from atlas_tune.errors import UsageError
from atlas_tune.llm import Interrupted, draining
from atlas_tune.select import Context, make_selector, select, selector_options
from atlas_tune.select.base import CannotLabel
from atlas_tune.select.likelihoods.reference import deal
from atlas_tune.trajectory import Observation, Step, Trajectory
from atlas_tune.trajectory.tasks import task_key
from tiny_model import tiny_tokenizer
from trajectory.runs import craft_run

TUNE = {"epochs": 4, "learning_rate": 1e-2, "rows_per_step": 2, "precision": "float32"}


def twin(run):
    """Another run of the same task."""
    first, *rest = run.steps[3:]
    slower = replace(first, message="Thought:\nSlowly.\n\nAction:\ninventory")
    return Trajectory.create(
        (*run.steps[:3], slower, *rest), environment=run.environment, task_id=run.task_id
    )


def runs_of(tasks):
    alone = [craft_run(2, task_id=f"t{n}") for n in range(tasks)]
    return [*alone, twin(alone[0]), twin(alone[1])]


RUNS = runs_of(5)


def excess(model, directory, runs=RUNS, **options):
    return make_selector(
        "excess",
        {"tune": TUNE, **options},
        Context(model=model, trajectories=runs, directory=directory),
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved_llama(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def tuned(model, tmp_path_factory):
    """A selector with its references made, and the directory that they lie in."""
    directory = tmp_path_factory.mktemp("run")
    selector = excess(model, directory)
    return selector, directory, select(RUNS, selector)


def test_the_score_is_what_tuning_on_other_tasks_takes_off_the_surprisal(model, tuned):
    selector, _, chosen = tuned
    assert chosen.unlabelled == ()
    scores = {(label.trajectory_id, label.step_id): label for label in chosen.labels}
    for run in RUNS:
        place = selector.references.place_of(selector.references.fold_of(run))
        both = [
            [
                -sum(step) / len(step)
                for step in plain_log_probs(load_model(m), tiny_tokenizer(), run)
            ]
            for m in (model, str(place))
        ]
        for step, before, after in zip(run.agent_steps, *both, strict=True):
            label = scores[run.trajectory_id, step.step_id]
            assert label.score == pytest.approx(before - after, abs=1e-4)
            assert label.reason.startswith(
                f"surprisal {before:.2f} nats per token, {after:.2f} after tuning on other tasks"
            )
            # What all runs say alike is learnt.
            assert label.score > 0.5


def test_no_reference_saw_the_trajectory_or_its_task(tuned):
    selector, directory, _ = tuned
    references = selector.references
    for run in RUNS:
        fold = references.fold_of(run)
        taught = references.taught(fold)
        assert taught
        assert task_key(run) not in {task_key(other) for other in taught}
        # And the training says that it had just these.
        record = json.loads((references.place_of(fold) / "training.json").read_text())
        assert record["figures"]["rows"] == len(taught)
        assert record["figures"]["optimiser_steps"] >= len(taught) * 4 // 2
    assert len(list((directory / "references").iterdir())) == 2


def test_folds_hold_whole_tasks_differ_by_one_and_do_not_know_the_order():
    folds = deal(RUNS, 2, seed=0)
    tasks = [{task_key(run) for run in fold} for fold in folds]
    assert sorted(map(len, tasks)) == [2, 3]
    assert not tasks[0] & tasks[1]
    assert sum(map(len, folds)) == len(RUNS)
    back = deal([*reversed(RUNS), RUNS[0]], 2, seed=0)
    assert [{run.trajectory_id for run in fold} for fold in back] == [
        {run.trajectory_id for run in fold} for fold in folds
    ]
    deals = {frozenset(task_key(run) for run in deal(RUNS, 2, seed)[0]) for seed in range(8)}
    assert len(deals) > 1
    assert [len({task_key(run) for run in fold}) for fold in deal(RUNS, 5, 0)] == [1] * 5


def test_runs_without_a_task_are_told_apart_by_their_opening():
    def run(goal, action):
        act = Step(2, "agent", f"Action: {action}", observation=Observation.of("Done."))
        return Trajectory.create((Step(1, "user", goal), act))

    runs = [run("Craft a stick.", "get"), run("Craft a stick.", "craft"), run("Find gold.", "go")]
    folds = deal(runs, 2, seed=0)
    assert sorted(map(len, folds)) == [1, 2]


def test_a_second_run_takes_the_references_from_file(model, tuned):
    _, directory, chosen = tuned
    places = sorted((directory / "references").glob("*/model.safetensors"))
    written = [place.stat().st_mtime_ns for place in places]
    again = select(list(reversed(RUNS)), excess(model, directory, list(reversed(RUNS))))
    by_step = {(label.trajectory_id, label.step_id): label.score for label in chosen.labels}
    assert {(la.trajectory_id, la.step_id): la.score for la in again.labels} == by_step
    assert [place.stat().st_mtime_ns for place in places] == written


def test_a_tuning_that_is_stopped_is_finished_by_the_next_run_and_gives_the_same(
    model, tuned, tmp_path
):
    selector, _, _ = tuned
    other = excess(model, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        tune_and_interrupt(other)
    place = other.references.place_of(0)
    assert json.loads((place / "training.json").read_text())["figures"] is None
    assert other.references.tuned(0) == place
    one, same = (
        load_model(str(one.references.place_of(0))).state_dict() for one in (selector, other)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)


def tune_and_interrupt(selector):
    with draining():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted):
            selector.references.tuned(0)


def test_the_source_holds_what_decides_the_references(model, tmp_path):
    plain = excess(model, tmp_path)
    others = [
        excess(model, tmp_path, seed=1),
        excess(model, tmp_path, folds=3),
        excess(model, tmp_path, tokens="action"),
        excess(model, tmp_path, tune={**TUNE, "epochs": 5}),
        excess(model, tmp_path, runs=RUNS[:-1]),
        excess(saved_llama(tmp_path / "base", seed=1), tmp_path),
    ]
    assert len({selector.source for selector in (plain, *others)}) == 7
    often = excess(model, tmp_path, tune={**TUNE, "checkpoint_minutes": 1})
    assert often.source == plain.source
    assert often.references.place_of(0) == plain.references.place_of(0)
    assert excess(model, Path("elsewhere"), runs=RUNS[::-1]).source == plain.source


def test_a_trajectory_that_was_not_dealt_is_listed(tuned):
    selector, _, _ = tuned
    with pytest.raises(CannotLabel, match="none of the trajectories that were dealt into folds"):
        selector.label(craft_run(3, task_id="new"))


def test_what_cannot_be_masked_tunes_no_reference_and_stops_none(model, tmp_path):
    # ChatML as it stands here cannot hold reasoning, so these two runs have no exact mask.
    thinking = [
        Trajectory.create(
            (Step(1, "user", f"Craft {n}."), Step(2, "agent", "Action: go", f"So {n} it is.")),
        )
        for n in range(2)
    ]
    runs = [*RUNS[:4], *thinking]
    selector = excess(model, tmp_path, runs, tune={**TUNE, "epochs": 1})
    chosen = select(runs, selector)
    assert len(chosen.selections) == 4
    assert ["without its reasoning" in missing.reason for missing in chosen.unlabelled] == [
        True
    ] * 2
    for fold in range(2):
        taught = {run.trajectory_id for run in selector.references.taught(fold)}
        exact = taught & {run.trajectory_id for run in RUNS}
        record = selector.references.place_of(fold) / "training.json"
        assert json.loads(record.read_text())["figures"]["rows"] == len(exact)


def test_the_cost_counts_what_is_tuned_and_what_is_read(tuned):
    selector, _, _ = tuned
    cost = selector.cost(RUNS)
    figures = [
        json.loads((selector.references.place_of(fold) / "training.json").read_text())["figures"]
        for fold in range(2)
    ]
    assert cost.tuned_tokens == sum(f["tokens"] for f in figures)
    [one] = [run for run in RUNS if run.task_id == "t3"]
    alone = selector.cost([one, craft_run(3, task_id="new")])
    assert alone.tuned_tokens == figures[selector.references.fold_of(one)]["tokens"]
    assert alone.read_tokens == 2 * (len(tokens_of(one)) - 1)


def tokens_of(run):
    text = tiny_tokenizer().apply_chat_template(
        [
            {"role": "user", "content": run.steps[0].message},
            {"role": "assistant", "content": "OK."},
            {"role": "user", "content": run.steps[2].message},
            {"role": "assistant", "content": run.steps[3].message},
            {"role": "user", "content": run.steps[3].observation.text},
            {"role": "assistant", "content": run.steps[4].message},
        ],
        tokenize=False,
    )
    return tiny_tokenizer()(text.removesuffix("\n"))["input_ids"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": "m", "trajectories": RUNS}, "set directory in its context"),
        ({"model": "m", "directory": Path("x")}, "set trajectories in its context"),
        ({"trajectories": RUNS, "directory": Path("x")}, "name it with --model"),
        (
            {"model": "m", "trajectories": RUNS[:1], "directory": Path("x")},
            "1 tasks cannot be dealt into 2 folds",
        ),
    ],
)
def test_what_is_missing_is_said(given, words):
    with pytest.raises(UsageError, match=words):
        make_selector("excess", {}, Context(**given))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tune": {"epoch": 1}}, "'tune.epoch' of the selector 'excess' does not fit"),
        ({"tune": {"epochs": 0}}, "'tune.epochs' .* greater than 0"),
        ({"folds": 1}, "greater than or equal to 2"),
    ],
)
def test_settings_are_checked_before_anything_is_tuned(options, words):
    with pytest.raises(UsageError, match=words):
        selector_options("excess", options)


def test_tuning_is_told_in_lines_and_so_is_what_it_leaves_out(model, tmp_path, capsys):
    runs = [craft_run(2, task_id="a"), craft_run(9, task_id="b"), craft_run(2, task_id="c")]
    tune = {**TUNE, "epochs": 1, "max_tokens": 200}
    selector = excess(model, tmp_path, runs, tune=tune, folds=3)
    selector.label(runs[0])
    told = capsys.readouterr().err
    assert "on 2 runs of other tasks, once; it is kept on file." in told
    assert "1 rows are longer than 200 tokens and were left out; raise tune.max_tokens." in told
    # Left out of the tuning, not of the labelling.
    assert len(selector.label(runs[1])) == 9
