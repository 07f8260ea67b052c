"""``atlas-tune run``: collect, select, tune, evaluate, report, skipping what is done."""

from __future__ import annotations

import gc
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from atlas_tune.agents.collect import collect_expert_runs, first_tasks
from atlas_tune.agents.local_model import model_digest, resolve_model
from atlas_tune.agents.react import REPLY_FORMAT
from atlas_tune.agents.rollout import PREFILL, Episode
from atlas_tune.environments import make_environment
from atlas_tune.environments.habits import Habits
from atlas_tune.errors import AtlasError
from atlas_tune.evaluate.rollouts import evaluate, settings_path
from atlas_tune.llm import Journal
from atlas_tune.pipeline.layout import Layout
from atlas_tune.pipeline.manifest import Manifest
from atlas_tune.pipeline.oracle_arm import check_oracles, oracle_job
from atlas_tune.pipeline.provenance import machine
from atlas_tune.pipeline.results import build_results
from atlas_tune.pipeline.stages import DATA, evaluate_stage, select_stage, tune_stage
from atlas_tune.progress import say, ticking
from atlas_tune.recipe import ArmSettings, Collect, EvaluateOn, Import, Recipe
from atlas_tune.report import write_report
from atlas_tune.report.results import UNTUNED
from atlas_tune.select import Context, Selector, make_selector
from atlas_tune.select.stage import select_steps
from atlas_tune.trajectory import StepLabel, Trajectory, stamped
from atlas_tune.trajectory.importing import NothingImported, import_files
from atlas_tune.trajectory.json_files import read_lines
from atlas_tune.trajectory.jsonl import write_jsonl
from atlas_tune.trajectory.labels import dump_label
from atlas_tune.trajectory.quarantine import Rejected, refuse, write_quarantine
from atlas_tune.trajectory.sidecars import labels_beside
from atlas_tune.trajectory.store import (
    read_labels,
    read_selections,
    read_trajectories,
    write_trajectories,
)


def run_recipe(recipe: Recipe, recipe_path: Path, directory: Path, command: str) -> Path:
    """Run a recipe from where it stands to its report; returns the path of the report.

    Raises:
        AtlasError: a stage cannot go on; what is done stays done.
    """
    # Every task is looked up before the first hour of work, so that a wrong option costs nothing.
    places = [_Place.of(where) for where in recipe.evaluate.environments]
    for source in recipe.data:
        if isinstance(source, Collect):
            _tasks(source.collect, source.split, source.tasks, source.options)
    check_oracles(recipe)
    directory.mkdir(parents=True, exist_ok=True)
    layout = Layout(directory)
    if recipe_path.resolve() != layout.recipe.resolve():
        shutil.copyfile(recipe_path, layout.recipe)
    manifest = Manifest(directory, {"command": command, "machine": machine()})
    run = _Run(recipe, layout, manifest)
    run.data()
    for arm in recipe.arms:
        run.select(arm)
    if recipe.evaluate.untuned:
        for place in places:
            run.evaluate(UNTUNED, None, place)
    for seed in recipe.seeds:
        for arm in recipe.arms:
            run.tune(arm, seed)
            for place in places:
                run.evaluate(arm.name, seed, place)
    results = build_results(recipe, layout, manifest, run.trajectories, run.base)
    return write_report(results, layout.report)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where models are evaluated: an environment, its tasks, its step limit."""

    environment: str
    tasks: tuple[str, ...]
    max_steps: int

    @classmethod
    def of(cls, where: EvaluateOn) -> _Place:
        tasks = _tasks(where.environment, where.split, where.tasks, where.options)
        limit = where.max_steps or make_environment(where.environment).max_steps
        return cls(where.environment, tasks, limit)


def _tasks(environment: str, split: str, count: int, options: dict[str, Any]) -> tuple[str, ...]:
    return tuple(first_tasks(make_environment(environment), split, count, options))


class _Run:
    """One run under way: the recipe, where its files are, and what is done."""

    def __init__(self, recipe: Recipe, layout: Layout, manifest: Manifest) -> None:
        self.recipe, self.layout, self.manifest = recipe, layout, manifest
        self.trajectories: list[Trajectory] = []

    @cached_property
    def base(self) -> str:
        """The base model's directory, found once, so that all arms start from the same weights."""
        return resolve_model(self.recipe.model)

    @cached_property
    def base_digest(self) -> str:
        return model_digest(self.base)

    def _stage(
        self,
        name: str,
        settings: dict[str, Any],
        inputs: list[Path],
        outputs: list[Path],
        run: Callable[[], dict[str, Any]],
        appended: Sequence[Path] = (),
    ) -> None:
        started = time.monotonic()
        if self.manifest.stage(name, settings, inputs, outputs, run, appended):
            gc.collect()  # models and optimisers hang in reference cycles
            say(f"✓ {name} ({time.monotonic() - started:.0f} s)")
        else:
            say(f"✓ {name} (done before)")

    def data(self) -> None:
        """Collect and import the training trajectories."""
        sources = self.recipe.data
        files = [source.path for source in sources if isinstance(source, Import)]
        for file in files:
            if not file.exists():
                raise AtlasError(f"The recipe imports {file}, which does not exist.")
        self._stage(
            DATA,
            {"sources": [source.model_dump(mode="json") for source in sources]},
            [*files, *filter(Path.is_file, map(labels_beside, files))],
            [self.layout.trajectories, self.layout.quarantine, self.layout.imported_labels],
            self._gather,
        )
        self.trajectories = list(read_trajectories(self.layout.trajectories))

    def _gather(self) -> dict[str, Any]:
        gathered: dict[str, Trajectory] = {}
        labels: list[StepLabel] = []
        rejected: list[Rejected] = []
        seconds: dict[str, float] = {}
        for source in self.recipe.data:
            if isinstance(source, Collect):
                started = time.monotonic()
                found, failed = _collect(source)
                rejected += failed
                spent = seconds.get(source.collect, 0.0) + time.monotonic() - started
                seconds[source.collect] = spent
            else:
                found, said, bad = self._import(source)
                labels += said
                rejected += bad
            gathered.update((t.trajectory_id, t) for t in found)
        if not gathered:
            reasons = "; ".join(str(bad) for bad in rejected[:3])
            raise AtlasError(f"The recipe's data give no trajectory: {reasons}.")
        write_trajectories(self.layout.trajectories, gathered.values())
        write_quarantine(self.layout.quarantine, rejected)
        write_jsonl(self.layout.imported_labels, map(dump_label, stamped(labels)))
        return {"seconds": seconds}

    def _import(self, source: Import) -> tuple[list[Trajectory], list[StepLabel], list[Rejected]]:
        """The trajectories of files, the labels that came with them, and what is bad in them."""
        with tempfile.TemporaryDirectory(dir=self.layout.directory) as folder:
            store = Path(folder) / "runs.jsonl"
            try:
                import_files([source.path], store, source.format)
            except NothingImported as error:
                return [], [], error.report.first_bad
            labels, bad = labels_beside(store), Path(f"{store}.quarantine.jsonl")
            return (
                list(read_trajectories(store)),
                list(read_labels(labels)) if labels.is_file() else [],
                [Rejected(**line.value) for line in read_lines(bad, refuse)]
                if bad.is_file()
                else [],
            )

    def select(self, arm: ArmSettings) -> None:
        """Label the steps for an arm and choose those that carry loss."""
        labels, selection = self.layout.labels(arm.name), self.layout.selection(arm.name)
        other = [] if arm.of is None else [self.layout.selection(arm.of)]
        share = self.recipe.arm_budget(arm)
        name = select_stage(arm.name)
        with closing(Journal(self.layout.journal(arm.name))) as journal:
            oracle = oracle_job(self.recipe, arm, self.layout, journal, self.trajectories)
            if oracle is not None:
                selector: Selector = oracle.selector()
            else:
                context = Context(
                    share=share,
                    other=list(read_selections(other[0]).values()) if other else None,
                    journal=journal,
                    imported=list(read_labels(self.layout.imported_labels)),
                    make_environment=make_environment,
                    model=self.recipe.model,
                    trajectories=self.trajectories,
                    directory=self.layout.selector_files,
                )
                selector = make_selector(arm.selector, arm.options, context)

            def run() -> dict[str, Any]:
                with ticking(f"select {arm.name}") as tick:
                    chosen, unlabelled = select_steps(
                        self.trajectories,
                        selector,
                        share,
                        labels,
                        selection,
                        lambda done, of: tick(done, of, "trajectories"),
                    )
                returned: dict[str, Any] = {"unlabelled": [asdict(one) for one in unlabelled]}
                if oracle is not None:
                    asked = oracle.asked(chosen, oracle.labels(selector.source))
                    for sentence in asked.sentences():
                        say(f"  {sentence}")
                    returned["asking"] = asked.record()
                if not any(found.step_ids for found in chosen):
                    reasons = "; ".join(missing.reason for missing in unlabelled[:2])
                    raise AtlasError(
                        f"The arm '{arm.name}' selects no step at all. {reasons}".strip()
                    )
                return returned

            self._stage(
                name,
                # The source says what decides the labels: the model, a user's own file, a seed.
                {"source": asdict(selector.source), "options": arm.options, "budget": share},
                [self.layout.trajectories, *other],
                [labels, selection],
                run,
                appended=[labels],
            )
        missing = self.manifest.returned(name)["unlabelled"]
        if missing:
            say(f"  {len(missing)} trajectories could not be labelled; the next run tries again.")
            say(f"  The first: {missing[0]['reason']}")
            self.manifest.reopen(name)

    def tune(self, arm: ArmSettings, seed: int) -> None:
        """Tune the base model on an arm's steps."""
        directory = self.layout.model(arm.name, seed)

        def run() -> dict[str, Any]:
            from atlas_tune.tune.stage import tune_model

            selections = read_selections(self.layout.selection(arm.name))
            with ticking(f"tune {arm.name}, seed {seed}") as tick:
                return tune_model(
                    self.base,
                    self.trajectories,
                    selections,
                    self.recipe.tune,
                    directory,
                    seed,
                    lambda step, of, loss: tick(step, of, f"steps, loss {loss:.3f}"),
                    read_labels(self.layout.labels(arm.name)),
                )

        self._stage(
            tune_stage(arm.name, seed),
            {"model": self.base_digest, "tune": self.recipe.tune.model_dump(), "seed": seed},
            [self.layout.trajectories, self.layout.selection(arm.name)],
            [directory],
            run,
        )

    def evaluate(self, arm: str, seed: int | None, place: _Place) -> None:
        """Let a model act on tasks of one environment."""
        path = self.layout.rollouts(arm, seed, place.environment)
        model = self.base if seed is None else str(self.layout.model(arm, seed))
        settings = self.recipe.evaluate
        answers = {
            "model": self.base_digest if seed is None else model_digest(model),
            "max_new_tokens": settings.max_new_tokens,
            "precision": settings.precision,
        }

        def run() -> dict[str, Any]:
            from atlas_tune.agents.local_policy import load_policy

            started = time.monotonic()
            with ticking(f"evaluate {arm} on {place.environment}") as tick:

                def show(done: int, episodes: list[Episode]) -> None:
                    ended = done + sum(e.ended for e in episodes)
                    won = sum(e.success for e in episodes)
                    turn = max(len(e.turns) for e in episodes)
                    tick(ended, len(place.tasks), f"tasks ended, {won} solved, turn {turn}")

                evaluate(
                    lambda: make_environment(place.environment),
                    place.tasks,
                    lambda: load_policy(model, settings.max_new_tokens, settings.precision),
                    path,
                    max_steps=place.max_steps,
                    batch_size=settings.batch_size,
                    agent={"name": arm, "version": str(seed), "model_name": self.recipe.model},
                    model=answers,
                    on_turn=show,
                )
            return {"seconds": time.monotonic() - started}

        env = make_environment(place.environment)
        self._stage(
            evaluate_stage(arm, seed, place.environment),
            {
                **answers,
                "tasks": list(place.tasks),
                "max_steps": place.max_steps,
                "batch_size": settings.batch_size,
                "opening": [env.instruction, REPLY_FORMAT, PREFILL],
            },
            [],
            [path, settings_path(path)],
            run,
        )


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
