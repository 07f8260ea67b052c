"""From the files of a run to the one value that the report shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from statistics import fmean
from typing import Any

from atlas_tune.environments import make_environment
from atlas_tune.evaluate.rollouts import Rollout
from atlas_tune.evaluate.statistics import score_interval, wilson_interval
from atlas_tune.pipeline.acted import actions
from atlas_tune.pipeline.audited import audited
from atlas_tune.pipeline.evaluations import Evaluations
from atlas_tune.pipeline.examples import examples
from atlas_tune.pipeline.experiment import Experiment
from atlas_tune.pipeline.failed import failures
from atlas_tune.pipeline.left_out import left_out
from atlas_tune.pipeline.manifest import Manifest
from atlas_tune.pipeline.provenance import versions
from atlas_tune.pipeline.stage import DATA, evaluate_stage, select_stage, tune_stage
from atlas_tune.recipe import ArmSettings, EvaluateOn, Recipe
from atlas_tune.report.compared import compare, score_cells
from atlas_tune.report.results import (
    CRITICAL,
    DECILES,
    UNTUNED,
    Arm,
    Complete,
    Data,
    Environment,
    LossCurve,
    LossPoint,
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


def build_results(experiment: Experiment) -> Results:
    """Everything that the report of a run shows, of what is done by now.

    Date, command and machine are those of the stage that finished last, so that a report written
    again says what was measured when.
    """
    recipe, layout, manifest = experiment.recipe, experiment.layout, experiment.manifest
    trajectories = experiment.trajectories
    latest = manifest.latest()
    current = experiment.current()
    done = Evaluations.read(recipe, layout, current)
    scores = done.scores()
    tuned = _tuned(recipe, current)
    # Of an arm that is drawn for each seed, the first draw is shown.
    drawn = {arm.name: arm.chosen_with(recipe.seeds[0]).name for arm in recipe.arms}
    chosen = [arm for arm in recipe.arms if select_stage(drawn[arm.name]) in current]
    selections = {a.name: read_selections(layout.selection(drawn[a.name])) for a in chosen}
    labels = {a.name: standing(read_labels(layout.labels(drawn[a.name]))) for a in chosen}
    made = {
        arm.name: [manifest.returned(tune_stage(*one)) for one in tuned if one[0] == arm.name]
        for arm in chosen
    }
    failed, transcripts = failures(done)
    first = [Arm(name=UNTUNED, selector="", reference=True)] if recipe.evaluate.untuned else []
    return Results(
        name=recipe.name,
        created_at=latest["finished_at"],
        recipe=layout.recipe.read_text(encoding="utf-8"),
        machine=latest["machine"],
        versions=versions(recipe.model, experiment.base),
        hashes=_hashes(experiment, drawn, selections),
        command=latest["command"],
        complete=Complete(done=len(done.rollouts), of=len(done.asked)),
        environments=tuple(_environment(where) for where in recipe.evaluate.environments),
        data=_data(trajectories, manifest.returned(DATA)["seconds"]),
        arms=(
            *first,
            *(
                _arm(recipe, a, made[a.name], selections[a.name], labels[a.name], trajectories)
                for a in chosen
                if made[a.name]
            ),
        ),
        results=tuple(
            _result(*place, rollouts, manifest.returned(evaluate_stage(*place))["seconds"])
            for place, rollouts in done.rollouts.items()
        ),
        cells=score_cells(scores, done.metrics),
        comparisons=compare(scores, done.metrics, _pairs(recipe), recipe.evaluate.delta),
        task_scores=scores,
        losses=tuple(
            _loss_curve(layout.model(name, seed) / "metrics.jsonl", name, seed)
            for name, seed in tuned
        ),
        reward_per_step=_reward_curves(done),
        failures=failed,
        actions=actions(recipe, done, trajectories, selections),
        transcripts=transcripts,
        criticality=audited(recipe, layout, current),
        examples=examples(trajectories, selections, labels, _proposed(recipe)),
        notes=(*recipe.notes, *_several_machines(manifest)),
        quarantined=left_out(recipe, layout, manifest, current),
    )


def _hashes(
    experiment: Experiment, drawn: Mapping[str, str], chosen: Iterable[str]
) -> dict[str, str]:
    """SHA-256 of what the numbers rest on; of an arm that is drawn for each seed the first draw."""
    layout, manifest = experiment.layout, experiment.manifest
    return {
        "base model's weights": experiment.base_digest,
        "trajectories": manifest.content_hash(layout.trajectories),
        **{
            f"selection of {arm}": manifest.content_hash(layout.selection(drawn[arm]))
            for arm in chosen
        },
    }


def _several_machines(manifest: Manifest) -> tuple[str, ...]:
    machines = [", ".join(machine.values()) for machine in manifest.machines()]
    if len(machines) < 2:
        return ()
    return (
        f"The stages ran on {len(machines)} machines ({'; '.join(machines)}), so their seconds do "
        "not compare.",
    )


def _pairs(recipe: Recipe) -> list[tuple[str, str]]:
    """Every arm with each arm that it is held against; of two such arms one way round."""
    pairs: list[tuple[str, str]] = []
    for against in recipe.compared_against():
        for arm in recipe.arms:
            if arm.name != against and (against, arm.name) not in pairs:
                pairs.append((arm.name, against))
    return pairs


def _tuned(recipe: Recipe, current: Set[str]) -> list[tuple[str, int]]:
    """The models that are made by now, by arm and seed."""
    models = [(arm.name, seed) for seed in recipe.seeds for arm in recipe.arms]
    return [model for model in models if tune_stage(*model) in current]


def _proposed(recipe: Recipe) -> str | None:
    """The arm whose labels the examples explain: ``critical``, or the first that is no control."""
    names = [arm.name for arm in recipe.arms if arm.selector not in _REFERENCES]
    return CRITICAL if CRITICAL in names else next(iter(names), None)


def _environment(where: EvaluateOn) -> Environment:
    env = make_environment(where.environment)
    return Environment(
        name=where.place,
        split=where.split,
        tasks=where.tasks,
        max_steps=where.max_steps or env.max_steps,
        metric="reward" if env.metric == "reward" else "success",
        role=where.role,
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
    arm: ArmSettings,
    figures: Sequence[Mapping[str, Any]],
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
    return Arm(
        name=arm.name,
        selector=arm.selector,
        of=arm.of,
        options=arm.options,
        budget=None if arm.selector == "all" else recipe.arm_budget(arm),
        reference=arm.selector in _REFERENCES,
        selected_steps=selected,
        total_steps=sum(len(t.agent_steps) for t in trajectories),
        trajectories=sum(bool(s.step_ids) for s in selections.values()),
        training=_training(figures, recipe.arm_tune(arm).epochs),
        kinds=dict(kinds),
        positions=tuple(count / selected for count in tenths) if selected else (),
    )


def _training(figures: Sequence[Mapping[str, Any]], epochs: float) -> Training:
    """Means over the seeds: an arm that is drawn anew for each has not always as many tokens."""
    counts = ("optimiser_steps", "rows", "tokens", "tokens_before_tail_cut", "supervised_tokens")
    measures = ("seconds", "first_loss", "last_loss")
    counted = [f["flops"] for f in figures if f.get("flops") is not None]
    return Training(
        epochs=epochs,
        flops=fmean(counted) if counted else None,
        **{name: round(fmean(f[name] for f in figures)) for name in counts},
        **{name: fmean(f[name] for f in figures) for name in measures},
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
        reward_interval=score_interval(rewards, least=-1.0 if min(rewards) < 0 else 0.0),
        mean_turns=turns / tasks,
        invalid_share=sum(r.invalid_turns for r in rollouts) / turns,
        seconds=seconds,
    )


def _loss_curve(path: Path, arm: str, seed: int) -> LossCurve:
    points = []
    seconds = 0.0
    for line in read_lines(path, refuse):
        if "loss" not in line.value:  # of held-out trajectories
            continue
        seconds += line.value["seconds"]
        points.append(LossPoint(step=line.value["step"], loss=line.value["loss"], seconds=seconds))
    return LossCurve(arm=arm, seed=seed, points=tuple(points))


def _reward_curves(done: Evaluations) -> tuple[RewardCurve, ...]:
    """Per environment and arm, over all seeds: the mean return collected by turn k."""
    curves = []
    for place in done.places:
        for arm in done.arms:
            rollouts = [r for found in done.of(arm, place).values() for r in found]
            if not rollouts:
                continue
            turns = max(r.turns for r in rollouts)
            points = tuple(
                sum(sum(r.rewards[:k]) for r in rollouts) / len(rollouts)
                for k in range(1, turns + 1)
            )
            curves.append(RewardCurve(environment=place, arm=arm, points=points))
    return tuple(curves)
