"""From the files of a run to the one value that the report shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from atlas_tune.environments import make_environment
from atlas_tune.evaluate.rollouts import Rollout, read_rollouts
from atlas_tune.evaluate.statistics import bootstrap_mean, exact_mcnemar, wilson_interval
from atlas_tune.pipeline.examples import examples
from atlas_tune.pipeline.layout import Layout
from atlas_tune.pipeline.manifest import Manifest
from atlas_tune.pipeline.provenance import versions
from atlas_tune.pipeline.stages import DATA, evaluate_stage, select_stage, tune_stage
from atlas_tune.recipe import ArmSettings, EvaluateOn, Recipe
from atlas_tune.report.results import (
    CRITICAL,
    DECILES,
    UNTUNED,
    Arm,
    Comparison,
    Data,
    Environment,
    LossCurve,
    LossPoint,
    Quarantined,
    Result,
    Results,
    RewardCurve,
    Training,
)
from atlas_tune.trajectory import Selection, StepLabel, Trajectory, standing
from atlas_tune.trajectory.json_files import read_lines
from atlas_tune.trajectory.quarantine import refuse
from atlas_tune.trajectory.store import read_labels, read_selections

_REFERENCES = ("all", "random", "complement", "first", "last")
"""Selectors whose arms are there to be compared with."""

Rollouts = dict[tuple[str, int | None, str], list[Rollout]]
"""Rollouts by arm, seed and environment."""


def build_results(
    recipe: Recipe,
    layout: Layout,
    manifest: Manifest,
    trajectories: Sequence[Trajectory],
    base: str,
) -> Results:
    """Everything that the report of a finished run shows.

    Date, command and machine are those of the stage that finished last, so that a report written
    again says what was measured when.
    """
    latest = manifest.latest()
    selections = {arm.name: read_selections(layout.selection(arm.name)) for arm in recipe.arms}
    labels = {arm.name: standing(read_labels(layout.labels(arm.name))) for arm in recipe.arms}
    runs: Rollouts = {}
    seconds: dict[tuple[str, int | None, str], float] = {}
    models = [(arm.name, seed) for seed in recipe.seeds for arm in recipe.arms]
    untuned: list[tuple[str, int | None]] = [(UNTUNED, None)] if recipe.evaluate.untuned else []
    for arm_name, seed in [*untuned, *models]:
        for where in recipe.evaluate.environments:
            place = (arm_name, seed, where.environment)
            runs[place] = read_rollouts(layout.rollouts(*place))
            seconds[place] = manifest.returned(evaluate_stage(*place))["seconds"]
    tuned = [
        _arm(recipe, manifest, arm, selections[arm.name], labels[arm.name], trajectories)
        for arm in recipe.arms
    ]
    first = [Arm(name=UNTUNED, selector="", reference=True)] if recipe.evaluate.untuned else []
    return Results(
        name=recipe.name,
        created_at=latest["finished_at"],
        recipe=layout.recipe.read_text(encoding="utf-8"),
        machine=latest["machine"],
        versions=versions(recipe.model, base),
        command=latest["command"],
        environments=tuple(_environment(where) for where in recipe.evaluate.environments),
        data=_data(trajectories, manifest.returned(DATA)["seconds"]),
        arms=(*first, *tuned),
        results=tuple(
            _result(*place, rollouts, seconds[place]) for place, rollouts in runs.items()
        ),
        comparisons=_comparisons(recipe, runs),
        losses=tuple(
            _loss_curve(layout.model(name, seed) / "metrics.jsonl", name, seed)
            for name, seed in models
        ),
        reward_per_step=_reward_curves(recipe, runs),
        examples=examples(trajectories, selections, labels, _proposed(recipe)),
        notes=recipe.notes,
        quarantined=_quarantined(recipe, layout, manifest),
    )


def _proposed(recipe: Recipe) -> str | None:
    """The arm whose labels the examples explain: ``critical``, or the first that is no control."""
    names = [arm.name for arm in recipe.arms if arm.selector not in _REFERENCES]
    return CRITICAL if CRITICAL in names else next(iter(names), None)


def _environment(where: EvaluateOn) -> Environment:
    env = make_environment(where.environment)
    return Environment(
        name=where.environment,
        split=where.split,
        tasks=where.tasks,
        max_steps=where.max_steps or env.max_steps,
        metric="reward" if env.metric == "reward" else "success",
    )


def _data(trajectories: Sequence[Trajectory], seconds: Mapping[str, float]) -> tuple[Data, ...]:
    names = sorted({t.environment or "unknown" for t in trajectories})
    rows = []
    for name in names:
        of_it = [t for t in trajectories if (t.environment or "unknown") == name]
        steps = sum(len(t.agent_steps) for t in of_it)
        known = [t.outcome.success for t in of_it if t.outcome.success is not None]
        rows.append(
            Data(
                environment=name,
                trajectories=len(of_it),
                steps=steps,
                collected_seconds=seconds.get(name),
                mean_steps=steps / len(of_it),
                success_share=sum(known) / len(known) if known else None,
            )
        )
    return tuple(rows)


def _arm(
    recipe: Recipe,
    manifest: Manifest,
    arm: ArmSettings,
    selections: Mapping[str, Selection],
    labels: Mapping[str, Sequence[StepLabel]],
    trajectories: Sequence[Trajectory],
) -> Arm:
    kinds: Counter[str] = Counter()
    tenths = [0] * DECILES
    for trajectory in trajectories:
        selection = selections.get(trajectory.trajectory_id)
        if selection is None:
            continue
        said = {label.step_id: label.kind for label in labels[trajectory.trajectory_id]}
        own = [step.step_id for step in trajectory.agent_steps]
        for step_id in selection.step_ids:
            kinds[str(said.get(step_id) or "none")] += 1
            tenths[own.index(step_id) * DECILES // len(own)] += 1
    selected = sum(tenths)
    figures = [manifest.returned(tune_stage(arm.name, seed)) for seed in recipe.seeds]
    return Arm(
        name=arm.name,
        selector=arm.selector,
        budget=None if arm.selector == "all" else recipe.arm_budget(arm),
        reference=arm.selector in _REFERENCES,
        selected_steps=selected,
        total_steps=sum(len(t.agent_steps) for t in trajectories),
        trajectories=sum(bool(s.step_ids) for s in selections.values()),
        training=_training(figures),
        kinds=dict(kinds),
        positions=tuple(count / selected for count in tenths) if selected else (),
    )


def _training(figures: Sequence[Mapping[str, Any]]) -> Training:
    first = figures[0]
    counts = ("optimiser_steps", "rows", "tokens", "tokens_before_tail_cut", "supervised_tokens")
    means = ("seconds", "first_loss", "last_loss")
    return Training(
        **{name: first[name] for name in counts},
        **{name: sum(f[name] for f in figures) / len(figures) for name in means},
    )


def _result(
    arm: str, seed: int | None, environment: str, rollouts: Sequence[Rollout], seconds: float
) -> Result:
    tasks = len(rollouts)
    successes = sum(r.success for r in rollouts)
    rewards = [r.reward for r in rollouts]
    turns = sum(r.turns for r in rollouts)
    return Result(
        arm=arm,
        seed=seed,
        environment=environment,
        tasks=tasks,
        successes=successes,
        success_rate=successes / tasks,
        interval=wilson_interval(successes, tasks),
        mean_reward=sum(rewards) / tasks,
        reward_interval=bootstrap_mean(rewards),
        mean_turns=turns / tasks,
        invalid_share=sum(r.invalid_turns for r in rollouts) / turns,
        seconds=seconds,
    )


def _comparisons(recipe: Recipe, runs: Rollouts) -> tuple[Comparison, ...]:
    """Every tuned arm against each named arm, on the same tasks with the same seed."""
    compared = []
    for against in recipe.compared_against():
        for arm in recipe.arms:
            if arm.name == against:
                continue
            for where in recipe.evaluate.environments:
                ours = _success_by_task(runs, arm.name, where.environment)
                theirs = _success_by_task(runs, against, where.environment)
                test = exact_mcnemar(ours, theirs)
                several = len(recipe.seeds) > 1
                compared.append(
                    Comparison(
                        arm=arm.name,
                        against=against,
                        environment=where.environment,
                        tasks=test.tasks,
                        wins=test.wins,
                        losses=test.losses,
                        ties=test.ties,
                        p_value=test.p_value,
                        verdict=test.verdict,
                        note="sign test over tasks, each the mean of its seeds" if several else "",
                    )
                )
    return tuple(compared)


def _success_by_task(runs: Rollouts, arm: str, environment: str) -> dict[str, float]:
    """Per task the share of the arm's models (one per seed) that solved it."""
    found = [
        {rollout.task_id: rollout.success for rollout in rollouts}
        for (name, _, place), rollouts in runs.items()
        if (name, place) == (arm, environment)
    ]
    return {task: sum(one[task] for one in found) / len(found) for task in found[0]}


def _loss_curve(path: Path, arm: str, seed: int) -> LossCurve:
    points = []
    seconds = 0.0
    for line in read_lines(path, refuse):
        if "loss" not in line.value:  # of held-out trajectories
            continue
        seconds += line.value["seconds"]
        points.append(LossPoint(step=line.value["step"], loss=line.value["loss"], seconds=seconds))
    return LossCurve(arm=arm, seed=seed, points=tuple(points))


def _reward_curves(recipe: Recipe, runs: Rollouts) -> tuple[RewardCurve, ...]:
    """Per environment and arm, over all seeds: the mean return collected by turn k."""
    curves = []
    for where in recipe.evaluate.environments:
        for arm in dict.fromkeys(arm for arm, _, _ in runs):
            rollouts = list(
                chain.from_iterable(
                    found
                    for (name, _, environment), found in runs.items()
                    if name == arm and environment == where.environment
                )
            )
            turns = max(r.turns for r in rollouts)
            points = tuple(
                sum(sum(r.rewards[:k]) for r in rollouts) / len(rollouts)
                for k in range(1, turns + 1)
            )
            curves.append(RewardCurve(environment=where.environment, arm=arm, points=points))
    return tuple(curves)


def _quarantined(recipe: Recipe, layout: Layout, manifest: Manifest) -> tuple[Quarantined, ...]:
    found = [
        Quarantined(
            place=f"{bad['file']}:{bad['line']}" if bad["line"] else bad["file"],
            reason=bad["reason"],
        )
        for bad in (line.value for line in read_lines(layout.quarantine, refuse))
    ]
    for arm in recipe.arms:
        for missing in manifest.returned(select_stage(arm.name))["unlabelled"]:
            place = f"{arm.name}, trajectory {missing['trajectory_id'][:12]}"
            found.append(Quarantined(place=place, reason=missing["reason"]))
        for seed in recipe.seeds:
            figures = manifest.returned(tune_stage(arm.name, seed))
            too_long = f"longer than {recipe.tune.max_tokens} tokens, so not trained"
            reasons = dict.fromkeys(figures["too_long"], too_long) | figures["refused"]
            for trajectory_id, reason in reasons.items():
                place = f"{arm.name}, trajectory {trajectory_id[:12]}"
                found.append(Quarantined(place=place, reason=reason))
    return tuple(dict.fromkeys(found))
