"""``atlas-tune run``: collect, select, tune, evaluate, report, skipping what is done."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from atlas_tune.agents.collect import collect_expert_runs, first_tasks
from atlas_tune.agents.rollout import Episode
from atlas_tune.environments import make_environment
from atlas_tune.environments.habits import Habits
from atlas_tune.errors import AtlasError
from atlas_tune.evaluate.rollouts import evaluate
from atlas_tune.llm import AnswerLog
from atlas_tune.pipeline.layout import Layout
from atlas_tune.pipeline.manifest import Manifest
from atlas_tune.pipeline.results import build_results
from atlas_tune.progress import say, ticking
from atlas_tune.recipe import ArmSettings, Collect, EvaluateOn, Import, Recipe
from atlas_tune.report import write_report
from atlas_tune.report.results import UNTUNED
from atlas_tune.select import Context, make_selector
from atlas_tune.select.stage import select_steps
from atlas_tune.trajectory import Trajectory
from atlas_tune.trajectory.formats import read_file
from atlas_tune.trajectory.store import (
    Rejected,
    read_selections,
    read_trajectories,
    write_quarantine,
    write_trajectories,
)


def run_recipe(recipe: Recipe, recipe_path: Path, directory: Path, command: str) -> Path:
    """Run a recipe from where it stands to its report; returns the path of the report.

    Raises:
        AtlasError: a stage cannot go on; what is done stays done.
    """
    run = _Run(recipe, Layout(directory), Manifest(directory))
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(recipe_path, run.layout.recipe)
    run.data()
    for arm in recipe.arms:
        run.select(arm)
    if recipe.evaluate.untuned:
        for where in recipe.evaluate.environments:
            run.evaluate(UNTUNED, None, where)
    for seed in recipe.seeds:
        for arm in recipe.arms:
            run.tune(arm, seed)
            for where in recipe.evaluate.environments:
                run.evaluate(arm.name, seed, where)
    return run.report(command)


class _Run:
    """One run under way: the recipe, where its files are, and what is done."""

    def __init__(self, recipe: Recipe, layout: Layout, manifest: Manifest) -> None:
        self.recipe, self.layout, self.manifest = recipe, layout, manifest
        self.trajectories: list[Trajectory] = []

    def _stage(
        self, name: str, settings: dict[str, Any], inputs: list[Path], outputs: list[Path], run: Any
    ) -> None:
        started = time.monotonic()
        if self.manifest.stage(name, settings, inputs, outputs, run):
            say(f"✓ {name} ({time.monotonic() - started:.0f} s)")
        else:
            say(f"✓ {name} (done before)")

    def data(self) -> None:
        """Collect and import the training trajectories."""
        sources = self.recipe.data
        files = [source.path for source in sources if isinstance(source, Import)]
        for file in files:
            if not file.is_file():
                raise AtlasError(f"The recipe imports {file}, which does not exist.")
        self._stage(
            "data",
            {"sources": [source.model_dump(mode="json") for source in sources]},
            files,
            [self.layout.trajectories, self.layout.quarantine],
            self._gather,
        )
        self.trajectories = list(read_trajectories(self.layout.trajectories))

    def _gather(self) -> dict[str, Any]:
        gathered: dict[str, Trajectory] = {}
        rejected: list[Rejected] = []
        seconds: dict[str, float] = {}
        for source in self.recipe.data:
            started = time.monotonic()
            if isinstance(source, Collect):
                found, failed = _collect(source)
                rejected += failed
                place = source.collect
            else:
                found = list(read_file(source.path, source.format, rejected.append))
                place = str(source.path)
            gathered.update((t.trajectory_id, t) for t in found)
            seconds[place] = seconds.get(place, 0.0) + time.monotonic() - started
        if not gathered:
            reasons = "; ".join(str(bad) for bad in rejected[:3])
            raise AtlasError(f"The recipe's data give no trajectory: {reasons}.")
        write_trajectories(self.layout.trajectories, gathered.values())
        write_quarantine(self.layout.quarantine, rejected)
        return {"seconds": seconds, "rejected": len(rejected)}

    def select(self, arm: ArmSettings) -> None:
        """Label the steps for an arm and choose those that carry loss."""
        labels, selection = self.layout.labels(arm.name), self.layout.selection(arm.name)
        other = [] if arm.of is None else [self.layout.selection(arm.of)]
        share = self.recipe.arm_budget(arm)

        def run() -> dict[str, Any]:
            selector = make_selector(
                arm.selector,
                arm.options,
                Context(
                    share=share,
                    other=list(read_selections(other[0]).values()) if other else None,
                    answers=AnswerLog(self.layout.answers(arm.name)),
                    make_environment=make_environment,
                ),
            )
            with ticking(f"select {arm.name}") as tick:
                _, unlabelled = select_steps(
                    self.trajectories,
                    selector,
                    share,
                    labels,
                    selection,
                    lambda done, of: tick(done, of, "trajectories"),
                )
            return {"unlabelled": [asdict(missing) for missing in unlabelled]}

        self._stage(
            f"select {arm.name}",
            {"selector": arm.selector, "options": arm.options, "budget": share},
            [self.layout.trajectories, *other],
            [labels, selection],
            run,
        )

    def tune(self, arm: ArmSettings, seed: int) -> None:
        """Tune the base model on an arm's steps."""
        directory = self.layout.model(arm.name, seed)

        def run() -> dict[str, Any]:
            from atlas_tune.tune.stage import tune_model

            selections = read_selections(self.layout.selection(arm.name))
            with ticking(f"tune {arm.name}, seed {seed}") as tick:
                return tune_model(
                    self.recipe.model,
                    self.trajectories,
                    selections,
                    self.recipe.tune,
                    directory,
                    seed,
                    lambda step, of, loss: tick(step, of, f"steps, loss {loss:.3f}"),
                )

        self._stage(
            f"tune {arm.name}, seed {seed}",
            {"model": self.recipe.model, "tune": self.recipe.tune.model_dump(), "seed": seed},
            [self.layout.trajectories, self.layout.selection(arm.name)],
            [directory],
            run,
        )

    def evaluate(self, arm: str, seed: int | None, where: EvaluateOn) -> None:
        """Let a model act on tasks of one environment."""
        path = self.layout.rollouts(arm, seed, where.environment)
        model = self.recipe.model if seed is None else str(self.layout.model(arm, seed))
        settings = self.recipe.evaluate
        env = make_environment(where.environment)
        tasks = first_tasks(env, where.split, where.tasks, where.options)
        max_steps = where.max_steps or env.max_steps

        def run() -> dict[str, Any]:
            from atlas_tune.agents.local_policy import load_policy

            started = time.monotonic()
            with ticking(f"evaluate {arm} on {where.environment}") as tick:

                def show(done: int, episodes: list[Episode]) -> None:
                    ended = done + sum(e.ended for e in episodes)
                    won = sum(e.success for e in episodes)
                    turn = max(len(e.turns) for e in episodes)
                    tick(ended, len(tasks), f"tasks ended, {won} solved, turn {turn}")

                evaluate(
                    lambda: make_environment(where.environment),
                    tasks,
                    lambda: load_policy(model, settings.max_new_tokens, settings.precision),
                    path,
                    max_steps=max_steps,
                    batch_size=settings.batch_size,
                    agent={"name": arm, "version": str(seed), "model_name": self.recipe.model},
                    on_turn=show,
                )
            return {"seconds": time.monotonic() - started, "tasks": list(tasks)}

        self._stage(
            f"evaluate {arm}{'' if seed is None else f', seed {seed}'} on {where.environment}",
            {
                "model": self.recipe.model,
                "tasks": list(tasks),
                "max_steps": max_steps,
                "batch_size": settings.batch_size,
                "max_new_tokens": settings.max_new_tokens,
                "precision": settings.precision,
                "instruction": env.instruction,
            },
            [] if seed is None else [self.layout.model(arm, seed)],
            [path],
            run,
        )

    def report(self, command: str) -> Path:
        """Write results.json and the report."""
        results = build_results(self.recipe, self.layout, self.manifest, self.trajectories, command)
        return write_report(results, self.layout.report)


def _collect(source: Collect) -> tuple[list[Trajectory], list[Rejected]]:
    env = make_environment(source.collect)
    tasks = first_tasks(env, source.split, source.tasks, source.options)
    with ticking(f"collect {source.collect}") as tick:
        collected = collect_expert_runs(
            env,
            tasks,
            seed=source.seed,
            habits=Habits(**source.habits.model_dump()),
            on_run=lambda done, of: tick(done, of, "runs"),
        )
    failed = [
        Rejected(task, 0, 0, f"no expert run: {why}") for task, why in collected.failures.items()
    ]
    return list(collected.trajectories), failed
