"""The select stages: per arm, the labels of its selector and the steps that it trains."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

from atlas_tune.environments import make_environment
from atlas_tune.errors import AtlasError
from atlas_tune.llm import Journal
from atlas_tune.pipeline.layout import Layout
from atlas_tune.pipeline.oracle_arm import oracle_job
from atlas_tune.pipeline.stage import DATA, Stage, select_stage
from atlas_tune.progress import say, ticking
from atlas_tune.recipe import ArmSettings, Recipe
from atlas_tune.select import Context, Selector, make_selector
from atlas_tune.select.oracle.asking import OracleJob
from atlas_tune.select.stage import select_steps
from atlas_tune.trajectory import Trajectory
from atlas_tune.trajectory.store import read_labels, read_selections


def choosing_stage(
    recipe: Recipe,
    layout: Layout,
    arm: ArmSettings,
    trajectories: Callable[[], Sequence[Trajectory]],
) -> Stage:
    """Labelling the steps for an arm and choosing those that carry loss."""
    choosing = _Choosing(recipe, layout, arm, trajectories)
    other = () if arm.of is None else (layout.selection(arm.of),)
    return Stage(
        select_stage(arm.name),
        choosing.settings,
        choosing.run,
        inputs=(layout.trajectories, *other),
        outputs=(layout.labels(arm.name), layout.selection(arm.name)),
        appended=(layout.labels(arm.name),),
        after=(DATA, *(() if arm.of is None else (select_stage(arm.of),))),
        like=(f"select by {arm.selector}",),
    )


class _Choosing:
    """The steps of one arm."""

    def __init__(
        self,
        recipe: Recipe,
        layout: Layout,
        arm: ArmSettings,
        trajectories: Callable[[], Sequence[Trajectory]],
    ) -> None:
        self.recipe, self.layout, self.arm = recipe, layout, arm
        self.trajectories = trajectories

    def settings(self) -> dict[str, Any]:
        # The source says what decides the labels: the model, a user's own file, a seed.
        with closing(Journal(self.layout.journal(self.arm.name))) as journal:
            selector, _ = self._selector(journal)
            source = asdict(selector.source)
        return {"source": source, "options": self.arm.options, "budget": self._share}

    @property
    def _share(self) -> float:
        return self.recipe.arm_budget(self.arm)

    def _selector(self, journal: Journal) -> tuple[Selector, OracleJob | None]:
        """The arm's selector; with its job where it asks an oracle."""
        oracle = oracle_job(self.recipe, self.arm, self.layout, journal, self.trajectories())
        if oracle is not None:
            return oracle.selector(), oracle
        of = self.arm.of
        context = Context(
            share=self._share,
            other=None if of is None else list(read_selections(self.layout.selection(of)).values()),
            journal=journal,
            imported=list(read_labels(self.layout.imported_labels)),
            make_environment=make_environment,
            model=self.recipe.model,
            trajectories=self.trajectories(),
            directory=self.layout.selector_files,
        )
        return make_selector(self.arm.selector, self.arm.options, context), None

    def run(self) -> dict[str, Any]:
        name = self.arm.name
        self._take_labels_over()
        with closing(Journal(self.layout.journal(name))) as journal:
            selector, oracle = self._selector(journal)
            with ticking(f"select {name}") as tick:
                chosen, unlabelled = select_steps(
                    self.trajectories(),
                    selector,
                    self._share,
                    self.layout.labels(name),
                    self.layout.selection(name),
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
            raise AtlasError(f"The arm '{name}' selects no step at all. {reasons}".strip())
        return returned

    def _take_labels_over(self) -> None:
        """Start from the labels of an arm that differs in its budget only.

        Labels name what decided them. Where the budget did (an oracle is told it), the selector
        finds that they are not its own, and labels anew.
        """
        labels = self.layout.labels(self.arm.name)
        if labels.exists():
            return
        for other in self.recipe.arms:
            theirs = self.layout.labels(other.name)
            alike = (other.selector, other.options, other.of) == (
                self.arm.selector,
                self.arm.options,
                self.arm.of,
            )
            if alike and other.name != self.arm.name and theirs.is_file():
                labels.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(theirs, labels)
                return
