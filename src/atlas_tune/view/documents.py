"""Runs with what is said of their steps, as the JSON that the page is made of.

Every text of a run is written so that signs that act or hide can be seen
(:mod:`atlas_tune.trajectory.visible`); the page puts it in as text, never as markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from atlas_tune.errors import UsageError
from atlas_tune.select.auditing.agreement import agree
from atlas_tune.select.auditing.ratings import CRITICAL, NONE, Rater, compare, source_name
from atlas_tune.trajectory import (
    PAPER_BUDGET,
    Selection,
    Step,
    StepLabel,
    Trajectory,
    budget_steps,
    choose,
)
from atlas_tune.trajectory.finding import Entry
from atlas_tune.trajectory.messages import arguments_text
from atlas_tune.trajectory.visible import one_line, visible
from atlas_tune.view.label_file import LabelFile

SELECTION = "selection"
"""What the selection file is called among the sources."""
MOST_DIFFERENCES = 500
"""As many steps on which two raters differ are listed."""


@dataclass(frozen=True)
class Runs:
    """Trajectories, the labels of their steps, and perhaps a selection."""

    trajectories: Sequence[Trajectory]
    labels: LabelFile
    selections: Mapping[str, Selection] = field(default_factory=dict)
    budget: float = PAPER_BUDGET
    """The share of a run's steps that would be selected."""

    @cached_property
    def by_id(self) -> Mapping[str, Trajectory]:
        """The trajectories by their ids."""
        return {trajectory.trajectory_id: trajectory for trajectory in self.trajectories}

    def run(self, trajectory_id: str) -> Trajectory:
        """The trajectory of an id.

        Raises:
            UsageError: there is none.
        """
        if trajectory_id not in self.by_id:
            raise UsageError(f"There is no trajectory {one_line(trajectory_id)} here.")
        return self.by_id[trajectory_id]

    def about(self) -> dict[str, Any]:
        """What there is, who labels, and of whom there are labels."""
        shown = self.selections and not self.labels.is_blind
        return {
            "annotator": self.labels.annotator.name,
            "own": self.labels.own,
            "is_blind": self.labels.is_blind,
            "labels": self.labels.path.name,
            "budget": self.budget,
            "sources": {**self.labels.sources, **({SELECTION: None} if shown else {})},
        }

    def entries(self) -> list[dict[str, Any]]:
        """Every run as a list shows it, with how many steps each source judged and marked."""
        return [self._entry(number, run) for number, run in enumerate(self.by_id.values(), start=1)]

    def _entry(self, number: int, run: Trajectory) -> dict[str, Any]:
        entry = Entry.of(number, run)
        counts = {}
        for source in self._sources_of(run):
            said = self._called(run, source)
            counts[source] = [len(said), sum(called != NONE for called in said.values())]
        return {
            "id": run.trajectory_id,
            "number": number,
            "environment": one_line(entry.environment or ""),
            "task": one_line(entry.task_id or ""),
            "success": entry.outcome.success,
            "reward": entry.outcome.reward,
            "steps": entry.steps,
            "counts": counts,
        }

    def document(self, trajectory_id: str) -> dict[str, Any]:
        """A run with its steps, every label of them, and what each source says and would select.

        Raises:
            UsageError: there is no such run.
        """
        run = self.run(trajectory_id)
        labels = {label.label_id: label for label in self.labels.of_run(trajectory_id)}
        said, chosen = {}, {}
        for source in self._sources_of(run):
            if source == SELECTION:
                chosen[source] = list(self.selections[trajectory_id].step_ids)
                continue
            standing = self.labels.said(trajectory_id, source)
            said[source] = {str(label.step_id): label.label_id for label in standing}
            chosen[source] = list(self.selection(run, source).step_ids)
        agent = (run.agent.get(key) for key in ("name", "version", "model_name"))
        return {
            "id": run.trajectory_id,
            "environment": one_line(run.environment or ""),
            "task": one_line(run.task_id or ""),
            "success": run.outcome.success,
            "reward": run.outcome.reward,
            "agent": one_line(" ".join(str(name) for name in agent if name)),
            "notes": visible(run.notes or ""),
            "budget": budget_steps(len(run.agent_steps), self.budget),
            "steps": [_step(step) for step in run.steps],
            "labels": {key: _label(label) for key, label in labels.items()},
            "said": said,
            "chosen": chosen,
        }

    def selection(self, run: Trajectory, source: str) -> Selection:
        """What the labels of a source select of a run as they stand, under the budget.

        Raises:
            UsageError: there is no such source of this run.
        """
        if source == SELECTION and run.trajectory_id in self.selections:
            return self.selections[run.trajectory_id]
        said = self.labels.said(run.trajectory_id, source)
        if not said:
            raise UsageError(f"{one_line(source)} says nothing of this run.")
        share = 1.0 if source == self.labels.own else self.budget
        return choose(run, said, share, source)

    def agreement(self, one: str, other: str) -> dict[str, Any]:
        """How far two sources agree on the steps that both judged, and where they do not.

        Raises:
            UsageError: there is no such source, or no step that both judged.
        """
        names = (one, other)
        if one == other:
            raise UsageError("A source agrees with itself.")
        compared = compare([self._rater(name) for name in names], self.by_id.values())
        pair = agree(compared).pairs[0]
        differ = [
            {"run": key, "step": step_id, "said": row}
            for key, rows in compared.steps.items()
            for step_id, row in rows.items()
            if (row[0] == NONE) != (row[1] == NONE) or (CRITICAL not in row and row[0] != row[1])
        ]
        return {
            **{name: asdict(getattr(pair, name)) for name in ("observed", "kappa", "kinds_kappa")},
            "raters": names,
            "trajectories": pair.trajectories,
            "steps": pair.steps,
            "kinds_steps": pair.kinds_steps,
            "prevalence": [asdict(figure) for figure in pair.prevalence],
            "confusion": pair.confusion,
            "differences": len(differ),
            "differ": differ[:MOST_DIFFERENCES],
        }

    def _rater(self, source: str) -> Rater:
        if source not in self.about()["sources"]:
            raise UsageError(f"There are no labels of '{one_line(source)}' here.")
        said = {
            key: self._called(run, source)
            for key, run in self.by_id.items()
            if source in self._sources_of(run)
        }
        return Rater(source, said)

    def _sources_of(self, run: Trajectory) -> list[str]:
        """Who says something of a run, the annotator last."""
        labels = self.labels.of_run(run.trajectory_id)
        found = {source_name(one.source): None for one in labels if one.supersedes is None}
        if run.trajectory_id in self.selections and not self.labels.is_blind:
            found[SELECTION] = None
        return sorted(found, key=self.labels.own.__eq__)

    def _called(self, run: Trajectory, source: str) -> dict[int, str]:
        """What a source calls each step of a run that it judged.

        A step with a score and no kind is critical where the budget takes it: a scorer scores
        every step.
        """
        taken = self.selection(run, source).step_ids
        if source == SELECTION:
            return {s.step_id: CRITICAL if s.step_id in taken else NONE for s in run.agent_steps}
        return {
            label.step_id: (CRITICAL if label.step_id in taken else NONE)
            if label.kind is None
            else label.kind.value
            for label in self.labels.said(run.trajectory_id, source)
        }


def _step(step: Step) -> dict[str, Any]:
    return {
        "id": step.step_id,
        "source": step.source,
        "own": step.source == "agent" and not step.is_copied_context,
        "copied": step.is_copied_context,
        "message": visible(step.message),
        "reasoning": visible(step.reasoning_content or ""),
        "calls": [
            {"name": one_line(call.function_name), "arguments": visible(arguments_text(call))}
            for call in step.tool_calls
        ],
        "results": [
            visible(result.content or "")
            for result in (step.observation.results if step.observation else ())
        ],
        "reward": step.reward,
    }


def _label(label: StepLabel) -> dict[str, Any]:
    return {
        "step": label.step_id,
        "kind": None if label.kind is None else label.kind.value,
        "score": label.score,
        "by": one_line(label.source.name),
        "source": source_name(label.source),
        "reason": visible(label.reason or ""),
        "quote": visible(label.quote or ""),
        "at": label.created_at,
        "supersedes": label.supersedes,
    }
