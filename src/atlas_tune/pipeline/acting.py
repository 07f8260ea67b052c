"""The evaluate stages: per model and place, what the model does on the place's tasks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas_tune.agents.collect import first_tasks
from atlas_tune.agents.making import LocalPolicies
from atlas_tune.agents.opening import Opening, opening_of
from atlas_tune.agents.react import REPLY_FORMAT
from atlas_tune.agents.rollout import PREFILL
from atlas_tune.environments import make_environment
from atlas_tune.evaluate.rollouts import evaluate, settings_path
from atlas_tune.pipeline.layout import Layout
from atlas_tune.pipeline.stage import Stage, evaluate_stage, tune_stage
from atlas_tune.progress import ticking
from atlas_tune.recipe import EvaluateOn, Recipe


@dataclass(frozen=True, slots=True)
class Place:
    """Where models are evaluated: an environment, its tasks, its step limit."""

    name: str
    """In files and reports."""
    environment: str
    tasks: tuple[str, ...]
    max_steps: int

    @classmethod
    def of(cls, where: EvaluateOn) -> Place:
        """The place of a recipe's entry.

        Raises:
            AtlasError: the environment cannot be had here, or has no such tasks.
        """
        env = make_environment(where.environment)
        tasks = first_tasks(env, where.split, where.tasks, where.options)
        return cls(where.place, where.environment, tuple(tasks), where.max_steps or env.max_steps)


@dataclass(frozen=True, slots=True)
class Acting:
    """A model that acts."""

    arm: str
    seed: int | None
    """None is the untuned model."""
    directory: Callable[[], str]
    digest: Callable[[], str]
    """Of its weights; they need not be there any more."""


def acting_stage(recipe: Recipe, layout: Layout, acting: Acting, place: Place) -> Stage:
    """Letting a model act on the tasks of one place."""
    path = layout.rollouts(acting.arm, acting.seed, place.name)
    settings = recipe.evaluate
    temperature, seed = settings.temperature, acting.seed or 0

    def answers() -> dict[str, Any]:
        return {
            "model": acting.digest(),
            "max_new_tokens": settings.max_new_tokens,
            "precision": settings.precision,
            **({} if temperature == 0 else {"temperature": temperature, "seed": seed}),
        }

    def opening() -> Opening | None:
        """What the runs carry that the model was tuned on; None is the environment's own."""
        return opening_of(Path(acting.directory()), place.environment)

    def decisive() -> dict[str, Any]:
        learnt = opening()
        own = [make_environment(place.environment).instruction, REPLY_FORMAT, PREFILL]
        return {
            **answers(),
            "tasks": list(place.tasks),
            "max_steps": place.max_steps,
            "batch_size": settings.batch_size,
            "opening": own if learnt is None else learnt.record(),
            **({} if settings.loop_limit is None else {"loop_limit": settings.loop_limit}),
        }

    def run() -> dict[str, Any]:
        started = time.monotonic()
        with ticking(f"evaluate {acting.arm} on {place.name}") as tick:
            found = evaluate(
                lambda: make_environment(place.environment),
                place.tasks,
                lambda: LocalPolicies(
                    acting.directory(),
                    settings.max_new_tokens,
                    settings.precision,
                    overlong="drop",
                )(seed, temperature),
                path,
                max_steps=place.max_steps,
                batch_size=settings.batch_size,
                agent={
                    "name": acting.arm,
                    "version": str(acting.seed),
                    "model_name": recipe.model,
                },
                model=answers(),
                opening=opening(),
                loop_limit=settings.loop_limit,
                on_standing=lambda standing: tick(standing.ended, standing.of, str(standing)),
            )
        errors = {r.task_id: r.error for r in found if r.error is not None}
        return {"seconds": time.monotonic() - started, "errors": errors}

    return Stage(
        evaluate_stage(acting.arm, acting.seed, place.name),
        decisive,
        run,
        outputs=(path, settings_path(path)),
        after=() if acting.seed is None else (tune_stage(acting.arm, acting.seed),),
        like=(f"evaluate {acting.arm} on {place.name}", f"evaluate on {place.name}", "evaluate"),
    )
