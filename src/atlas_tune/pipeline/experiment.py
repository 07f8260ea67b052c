"""The stages of a recipe, in the order in which they are done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from atlas_tune.agents.local_model import check_model, model_digest, resolve_model
from atlas_tune.errors import AtlasError, UsageError, nearest
from atlas_tune.pipeline.acting import Acting, Place, acting_stage
from atlas_tune.pipeline.auditing import auditing_stage
from atlas_tune.pipeline.choosing import choosing_stage
from atlas_tune.pipeline.gathering import check_data, data_stage
from atlas_tune.pipeline.layout import Layout
from atlas_tune.pipeline.manifest import Manifest
from atlas_tune.pipeline.oracle_arm import check_oracles
from atlas_tune.pipeline.stage import Stage, tune_stage
from atlas_tune.pipeline.tuning import tuning_stage
from atlas_tune.recipe import ArmSettings, Recipe
from atlas_tune.report.results import UNTUNED
from atlas_tune.trajectory import Trajectory
from atlas_tune.trajectory.store import read_trajectories


@dataclass(frozen=True, slots=True)
class Only:
    """The part of a recipe that is asked for; an empty tuple is everything."""

    arms: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    places: tuple[str, ...] = ()

    @classmethod
    def parse(cls, words: Sequence[str], recipe: Recipe) -> Only:
        """From ``arm=NAME``, ``seed=N`` and ``environment=NAME``.

        Raises:
            UsageError: a word is none of these, or names what the recipe does not have.
        """
        known = {
            "arm": [
                *([UNTUNED] if recipe.evaluate.untuned else []),
                *(a.name for a in recipe.arms),
            ],
            "seed": [str(seed) for seed in recipe.seeds],
            "environment": [where.place for where in recipe.evaluate.environments],
        }
        asked: dict[str, list[str]] = {key: [] for key in known}
        for word in words:
            key, _, value = word.partition("=")
            if key not in known:
                raise UsageError(f"--only {word}: it takes arm=…, seed=… or environment=….")
            if value not in known[key]:
                raise UsageError(
                    f"--only {word}: the recipe has no such {key}; {nearest(value, known[key])}"
                )
            asked[key].append(value)
        seeds = tuple(int(seed) for seed in asked["seed"])
        return cls(tuple(asked["arm"]), seeds, tuple(asked["environment"]))

    def wants_arm(self, name: str) -> bool:
        """Whether an arm is asked for."""
        return not self.arms or name in self.arms


EVERYTHING = Only()


@dataclass(frozen=True, slots=True)
class ModelStages:
    """One model: how it is made, and where it acts."""

    tuning: Stage | None
    """None is the untuned model, which needs no making."""
    acting: tuple[Stage, ...]


class Experiment:
    """A recipe with the places of its files; says which stages there are."""

    def __init__(self, recipe: Recipe, layout: Layout, manifest: Manifest) -> None:
        """Look everything up that can be wrong before the first hour of work.

        Raises:
            AtlasError: the model, data, tasks or an oracle cannot be had.
        """
        check_model(recipe.model)
        self.recipe, self.layout, self.manifest = recipe, layout, manifest
        self.places = [Place.of(where) for where in recipe.evaluate.environments]
        check_data(recipe)
        check_oracles(recipe)

    @cached_property
    def trajectories(self) -> list[Trajectory]:
        """All of the run; the data stage must be done."""
        return list(read_trajectories(self.layout.trajectories))

    @cached_property
    def base(self) -> str:
        """The base model's directory, found once, so that all arms start from the same weights."""
        return resolve_model(self.recipe.model)

    @cached_property
    def base_digest(self) -> str:
        """Of the base model's weights."""
        return model_digest(self.base)

    def preparing(self, only: Only = EVERYTHING) -> Iterator[Stage]:
        """The data, then the selections of the arms that are asked for and of those they need."""
        yield data_stage(self.recipe, self.layout)
        needed = self._with_needed(only)
        seeds = [seed for seed in self.recipe.seeds if not only.seeds or seed in only.seeds]
        for arm in self.recipe.arms:
            if arm.name not in needed:
                continue
            # By name, so that an arm that is not drawn anew stands here once.
            for one in {found.name: found for found in map(arm.chosen_with, seeds)}.values():
                yield choosing_stage(self.recipe, self.layout, one, lambda: self.trajectories)

    def current(self) -> frozenset[str]:
        """The names of the stages whose results are those of the recipe as it is now.

        What stands in the directory from other settings is not among them, nor what was made of it.
        """
        found: set[str] = set()

        def look(stage: Stage) -> None:
            # What a stage needs to be known by may be gone: a file, a server.
            with suppress(AtlasError):
                if found >= {*stage.after} and self.manifest.holds(stage):
                    found.add(stage.name)

        for stage in self.preparing():
            look(stage)
        for model in self.models():
            for stage in (*filter(None, [model.tuning]), *model.acting):
                look(stage)
        for stage in self.audits():
            look(stage)
        return frozenset(found)

    def _with_needed(self, only: Only) -> set[str]:
        needed: set[str] = set()
        for arm in reversed(self.recipe.arms):  # an arm names only arms above it
            if (only.wants_arm(arm.name) or arm.name in needed) and arm.name != UNTUNED:
                needed |= {arm.name} if arm.of is None else {arm.name, arm.of}
        return needed

    def models(self, only: Only = EVERYTHING) -> Iterator[ModelStages]:
        """The models that are asked for, one seed after the other, so that the first is whole
        before the second begins."""
        if self.recipe.evaluate.untuned and only.wants_arm(UNTUNED):
            yield self._model(None, None, only)
        for seed in self.recipe.seeds:
            if only.seeds and seed not in only.seeds:
                continue
            for arm in self.recipe.arms:
                if only.wants_arm(arm.name):
                    yield self._model(arm, seed, only)

    def audits(self, only: Only = EVERYTHING) -> Iterator[Stage]:
        """The audits that are asked for. They are of the training runs and not of a place, and of
        an arm that is drawn for each seed they see the first draw."""
        first = self.recipe.seeds[0]
        if only.places or (only.seeds and first not in only.seeds):
            return
        for arm in self.recipe.audited():
            if only.wants_arm(arm.name):
                yield auditing_stage(
                    self.recipe,
                    self.layout,
                    arm,
                    lambda: (self.base, self.base_digest),
                    lambda: self.trajectories,
                )

    def _model(self, arm: ArmSettings | None, seed: int | None, only: Only) -> ModelStages:
        if arm is None or seed is None:
            tuning = None
            acting = Acting(UNTUNED, None, lambda: self.base, lambda: self.base_digest)
        else:
            tuning = tuning_stage(
                self.recipe,
                self.layout,
                arm,
                seed,
                lambda: (self.base, self.base_digest),
                lambda: self.trajectories,
            )
            made = tune_stage(arm.name, seed)
            acting = Acting(
                arm.name,
                seed,
                lambda: str(self.layout.model(arm.name, seed)),
                lambda: str(self.manifest.returned(made)["digest"]),
            )
        places = [place for place in self.places if not only.places or place.name in only.places]
        return ModelStages(
            tuning,
            tuple(acting_stage(self.recipe, self.layout, acting, place) for place in places),
        )
