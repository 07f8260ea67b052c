"""The evaluations of a run that are done by now, read from their files."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from atlas_tune.environments import make_environment
from atlas_tune.evaluate.rollouts import Rollout, read_rollouts
from atlas_tune.pipeline.layout import Layout
from atlas_tune.pipeline.stage import evaluate_stage
from atlas_tune.recipe import Recipe
from atlas_tune.report.results import UNTUNED, Metric, SeedScores, TaskScores

Model = tuple[str, int | None]
"""An arm and its seed; the untuned model has none."""


@dataclass(frozen=True, slots=True)
class Evaluations:
    """Rollouts by arm, seed and place, in the order of the recipe."""

    asked: tuple[tuple[str, int | None, str], ...]
    """All that the recipe asks for."""
    rollouts: Mapping[tuple[str, int | None, str], list[Rollout]]
    """Those that are done."""
    metrics: Mapping[str, Metric]
    """By place, ``success`` or ``reward``."""
    limits: Mapping[str, int]
    """By place, the step limit."""

    @classmethod
    def read(cls, recipe: Recipe, layout: Layout, current: Set[str]) -> Evaluations:
        """What the files of a run hold.

        Args:
            recipe: says what is asked for.
            layout: says where.
            current: the names of the stages whose results count.

        Raises:
            AtlasError: a line of a file is no rollout.
        """
        models: list[Model] = [(UNTUNED, None)] if recipe.evaluate.untuned else []
        models += [(arm.name, seed) for seed in recipe.seeds for arm in recipe.arms]
        asked = tuple(
            (arm, seed, where.place)
            for arm, seed in models
            for where in recipe.evaluate.environments
        )
        envs = {w.place: make_environment(w.environment) for w in recipe.evaluate.environments}
        return cls(
            asked=asked,
            rollouts={
                one: read_rollouts(layout.rollouts(*one))
                for one in asked
                if evaluate_stage(*one) in current
            },
            metrics={
                place: "reward" if env.metric == "reward" else "success"
                for place, env in envs.items()
            },
            limits={
                where.place: where.max_steps or envs[where.place].max_steps
                for where in recipe.evaluate.environments
            },
        )

    @property
    def places(self) -> list[str]:
        """The places, in the order of the recipe."""
        return list(self.metrics)

    @property
    def arms(self) -> list[str]:
        """The arms of which something is done, in the order of the recipe."""
        return list(dict.fromkeys(arm for arm, _, _ in self.rollouts))

    def of(self, arm: str, place: str) -> dict[int | None, list[Rollout]]:
        """An arm's rollouts in a place, by seed."""
        return {
            seed: found
            for (name, seed, where), found in self.rollouts.items()
            if (name, where) == (arm, place)
        }

    def scores(self) -> tuple[TaskScores, ...]:
        """By place: what its metric says of every task and model, success as 0 or 1."""
        found = []
        for place in self.places:
            by_reward = self.metrics[place] == "reward"
            here = {key: rollouts for key, rollouts in self.rollouts.items() if key[2] == place}
            tasks = list(dict.fromkeys(r.task_id for rollouts in here.values() for r in rollouts))
            models = []
            for (arm, seed, _), rollouts in here.items():
                said = {r.task_id: r.reward if by_reward else float(r.success) for r in rollouts}
                values = tuple(said.get(task) for task in tasks)
                models.append(SeedScores(arm=arm, seed=seed, values=values))
            found.append(TaskScores(environment=place, tasks=tuple(tasks), scores=tuple(models)))
        return tuple(found)
