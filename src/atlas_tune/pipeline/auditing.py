"""The audit stages: per arm, how the untuned model does after the steps that the arm selected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from atlas_tune import __version__
from atlas_tune.agents.making import LocalPolicies
from atlas_tune.environments import make_environment
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.pipeline.layout import Layout
from atlas_tune.pipeline.stage import DATA, Stage, audit_stage, select_stage
from atlas_tune.progress import ticking
from atlas_tune.recipe import ArmSettings, AuditSettings, Recipe
from atlas_tune.report.criticality import write_criticality
from atlas_tune.select.auditing.criticality import Criticality
from atlas_tune.select.auditing.matched_sets import CountedOnce
from atlas_tune.select.auditing.measured import measure
from atlas_tune.select.auditing.measurement import Measurement
from atlas_tune.select.auditing.places import Player
from atlas_tune.select.auditing.taken import Taken
from atlas_tune.trajectory import Trajectory, standing
from atlas_tune.trajectory.store import read_labels, read_selections

_NAMELESS = "environment not named"


def auditing_stage(
    recipe: Recipe,
    layout: Layout,
    arm: ArmSettings,
    base: Callable[[], tuple[str, str]],
    trajectories: Callable[[], Sequence[Trajectory]],
) -> Stage:
    """Measuring an arm's selection in every environment of the training runs.

    Args:
        recipe: says how, in ``audit``.
        layout: says where.
        arm: whose selection.
        base: gives the directory of the base model and the digest of its weights.
        trajectories: gives all of the run.
    """
    assert recipe.audit is not None, "only a recipe that asks for audits has audited arms"
    auditing = _Auditing(recipe, recipe.audit, layout, arm, base, trajectories)
    return Stage(
        audit_stage(arm.name),
        auditing.settings,
        auditing.run,
        inputs=(layout.trajectories, *auditing.chosen),
        outputs=(layout.audits(arm.name),),
        after=(DATA, select_stage(auditing.drawn)),
        like=("audit",),
    )


class _Auditing:
    """The audit of one arm."""

    def __init__(
        self,
        recipe: Recipe,
        audit: AuditSettings,
        layout: Layout,
        arm: ArmSettings,
        base: Callable[[], tuple[str, str]],
        trajectories: Callable[[], Sequence[Trajectory]],
    ) -> None:
        self.recipe, self.audit, self.layout, self.arm = recipe, audit, layout, arm
        self.base, self.trajectories = base, trajectories
        self.drawn = arm.chosen_with(recipe.seeds[0]).name
        self.chosen = (layout.selection(self.drawn), layout.labels(self.drawn))

    def settings(self) -> dict[str, Any]:
        """All that decides the figures besides runs and selection."""
        audit = self.audit.model_dump(exclude={"arms"})
        return {**audit, **self._answers(), "batch_size": self.recipe.evaluate.batch_size}

    def _answers(self) -> dict[str, Any]:
        """What decides the policy's replies besides their temperature."""
        return {
            "model": self.base()[1],
            "max_new_tokens": self.recipe.evaluate.max_new_tokens,
            "precision": self.audit.precision,
        }

    def run(self) -> dict[str, Any]:
        """Measure in one environment after the other; what could not be measured is returned."""
        left_out: list[dict[str, str]] = []
        player, tokens = self._player(), CountedOnce(self.base()[0])
        for name, runs in self._environments():
            try:
                found = self._measured(name, runs, player, tokens)
            except _CannotAudit as error:
                left_out.append({"what": name, "reason": str(error)})
                continue
            left_out += [
                {"what": f"trajectory {one.trajectory_id[:12]}", "reason": one.reason}
                for one in (*found.left_out, *found.not_started)
            ]
            record = {"made": self._made(), **asdict(found)}
            write_criticality(record, self.layout.audit(self.arm.name, name))
        self.layout.audits(self.arm.name).mkdir(parents=True, exist_ok=True)
        return {"left_out": left_out}

    def _environments(self) -> Iterator[tuple[str, list[Trajectory]]]:
        """The training runs by environment."""
        runs = self.trajectories()
        for name in sorted({run.environment or _NAMELESS for run in runs}):
            yield name, [run for run in runs if (run.environment or _NAMELESS) == name]

    def _player(self) -> Player:
        evaluate = self.recipe.evaluate
        return Player(
            LocalPolicies(self.base()[0], evaluate.max_new_tokens, self.audit.precision),
            self._answers(),
            name=self.recipe.model,
            temperature=self.audit.temperature,
            rollouts=self.audit.rollouts,
            batch_size=evaluate.batch_size,
        )

    def _measured(
        self, name: str, runs: Sequence[Trajectory], player: Player, tokens: CountedOnce
    ) -> Criticality:
        selections = read_selections(self.chosen[0])
        here = {run.trajectory_id for run in runs}
        steps = {key: frozenset(s.step_ids) for key, s in selections.items() if key in here}
        if not any(steps.values()):
            raise _CannotAudit("no step of its runs is selected, so there is nothing to measure")
        if name == _NAMELESS:
            raise _CannotAudit("its runs cannot be played again: name it when importing them")
        try:
            make_environment(name)
        except UsageError as error:
            raise _CannotAudit(f"its runs cannot be played again: {error}") from error
        labels = standing(read_labels(self.chosen[1]))
        measurement = Measurement(
            [Taken(self.arm.name, steps, labels)],
            runs,
            make_environment,
            self.layout.audit_files,
            tokens,
            player,
            self.audit.trajectories,
            self.audit.controls,
            seed=self.audit.seed,
        )
        with ticking(f"audit {self.arm.name} in {name}") as tick:
            try:
                return measure(measurement, tick)
            except AtlasError as error:
                # The evaluations stand without it: one audit must not end a run of many hours.
                raise _CannotAudit(str(error)) from error

    def _made(self) -> dict[str, str]:
        return {
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": f"atlas-tune run {self.layout.recipe.name}",
            "version": __version__,
            "runs": self.layout.trajectories.name,
        }


class _CannotAudit(AtlasError):
    """An environment in which nothing can be measured; the message says why."""
