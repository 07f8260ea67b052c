"""Excess surprisal: what the base policy does not know yet and can learn from such data.

score_t = surprisal_t(π₀) − surprisal_t(π_ref), in nats per token, with surprisal_t(π) =
− (1/n) Σ_j log π(y_{t,j} | h_t, y_{t,<j}). This is the excess loss of Rho-1 (arXiv 2404.07965),
there of tokens, here of steps. Noise stays surprising to the reference as well and scores low; so
does what π₀ knows already.

Rho-1 tunes its reference on other, better data. Here it is tuned on the run's own trajectories,
so it is cross-fitted (:mod:`.reference`): a trajectory is scored by a reference that saw neither it
nor any other run of its task. A reference that had seen it would know its noise by heart.

The references are tuned when the first trajectory of their fold is labelled, which takes what
tuning takes. The base policy and one reference for each fold are then in memory together.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from atlas_tune.errors import UsageError
from atlas_tune.select.base import CannotLabel, Cost, labels_of_scores
from atlas_tune.select.context import Context
from atlas_tune.select.likelihoods.by_likelihood import (
    LikelihoodOptions,
    Likelihoods,
    readable_passages,
    reading_cost,
)
from atlas_tune.select.likelihoods.likelihood import StepScorer, load_scorer
from atlas_tune.select.likelihoods.reference import References
from atlas_tune.select.likelihoods.surprisal import tokens_in_words
from atlas_tune.trajectory import StepLabel, Trajectory
from atlas_tune.tune.settings import TuneSettings


class ExcessOptions(LikelihoodOptions):
    """The settings of ``excess``."""

    folds: int = Field(2, ge=2)
    """Parts into which the tasks are dealt; each is scored by a reference tuned on the others."""
    tune: TuneSettings = TuneSettings()
    """How the references are tuned; the settings of ``tune`` in a recipe, and their defaults."""
    seed: int = 0
    """Of the deal and of the tuning."""


class ExcessSelector(Likelihoods):
    """Scores every step by how much less a reference is surprised that was tuned on other tasks."""

    name = "excess"

    def __init__(self, options: ExcessOptions, context: Context) -> None:
        """Deal the tasks into folds; nothing is tuned before the first trajectory is labelled.

        Raises:
            UsageError: the context names no model, no trajectories or no directory, or there are
                fewer tasks than folds.
        """
        super().__init__(
            context.base_model(self.name, options.model), options.tokens, options.precision
        )
        if not context.trajectories or context.directory is None:
            missing = "directory" if context.trajectories else "trajectories"
            raise UsageError(
                "The selector 'excess' tunes references on all trajectories of the run and keeps "
                f"them on file: set {missing} in its context."
            )
        self.references = References(
            self.model,
            context.trajectories,
            context.directory / "references",
            options.folds,
            options.tune,
            options.seed,
        )
        self.version = (
            f"1+tokens={self.tokens},precision={self.precision},folds={options.folds},"
            f"seed={options.seed},references={self.references.identity}"
        )
        self._scorers: dict[int, StepScorer] = {}

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """A score for every step that has a counted token; the others are no candidates.

        Raises:
            CannotLabel: it is none of the run's trajectories, its tokens cannot be told exactly,
                or the model cannot read so many.
            AtlasError: a reference cannot be tuned, or the model cannot be found.
        """
        fold = self.references.fold_of(trajectory)
        if fold is None:
            raise CannotLabel(
                "it is none of the trajectories that were dealt into folds, so no reference is "
                "known not to have seen its task: label it together with the others"
            )
        scores: dict[int, float] = {}
        reasons: dict[int, str] = {}
        base = self.scorer.likelihoods(trajectory)
        taught = self._reference(fold).likelihoods(trajectory)
        for before, after in zip(base, taught, strict=True):
            step_id, counted = before.step_id, before.counted(self.tokens)
            if not counted:
                reasons[step_id] = "no action could be read in this step"
                continue
            surprisal = -sum(counted) / len(counted)
            left = -sum(after.counted(self.tokens)) / len(counted)
            scores[step_id] = surprisal - left
            reasons[step_id] = (
                f"surprisal {surprisal:.2f} nats per token, {left:.2f} after tuning on other "
                f"tasks, over {tokens_in_words(len(counted), self.tokens)}"
            )
        return labels_of_scores(trajectory, self.source, scores, reasons)

    def _reference(self, fold: int) -> StepScorer:
        """The reference of a fold, tuned and loaded at first use."""
        if fold not in self._scorers:
            place = self.references.tuned(fold)
            self._scorers[fold] = load_scorer(str(place), self.precision)
        return self._scorers[fold]

    def cost(self, trajectories: Iterable[Trajectory]) -> Cost:
        """Two readings of every trajectory, and the tuning of the references that they need.

        A reference that is on file already is counted too: its name stands for the base model's
        weights, and counting loads none.
        """
        runs = [run for run in trajectories if self.references.fold_of(run) is not None]
        total = reading_cost(readable_passages(self.model, runs))
        for fold in sorted({self.references.fold_of(run) or 0 for run in runs}):
            own = [run for run in runs if self.references.fold_of(run) == fold]
            total += reading_cost(readable_passages(self.model, own))
            total += Cost(tuned_tokens=self.references.tuned_tokens(fold))
        return total
