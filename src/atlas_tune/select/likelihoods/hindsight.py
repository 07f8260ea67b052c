"""Hindsight: how much likelier the expert's step becomes to a policy that is told the end.

score_t = (1/n) Σ_j [log π₀(y_{t,j} | told, h_t, y_{t,<j}) − log π₀(y_{t,j} | h_t, y_{t,<j})], the
hindsight ratio of HCAPO (arXiv 2603.08754), normalised by the step's n tokens, in nats per token.
A step that the outcome explains was done for the outcome's sake. HCAPO corrects a policy's
advantages by it in reinforcement learning; here it ranks the steps of an expert.

What is told is appended to the message that opens the run (the user's first, in AgentGym's form
the instruction), so that history, prompt and answer stay the same, token for token, and the two
readings differ in nothing but the knowledge. The words are ours:

    In the end the task is solved, with reward 1. The last answer of the environment is: …

The outcome is taken from the record. Where none is recorded, as in AgentTraj-L, the last
observation has to do. It names what the run was after ("Crafted 1 minecraft:stick"), so steps
that speak of it get likelier than others; and where nothing answers the last step, as in
AgentTraj-L again, it is the answer to an earlier one and tells less. ``outcome: verdict`` tells
that the task is solved and no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from atlas_tune.select.base import CannotLabel, Cost, labels_of_scores
from atlas_tune.select.likelihoods.by_likelihood import (
    LikelihoodOptions,
    Likelihoods,
    readable_passages,
    reading_cost,
)
from atlas_tune.select.likelihoods.surprisal import tokens_in_words
from atlas_tune.trajectory import Outcome, StepLabel, Trajectory

Known = Literal["known", "verdict", "final_observation"]
"""What the policy is told of the end."""


class HindsightOptions(LikelihoodOptions):
    """The settings of ``hindsight``."""

    outcome: Known = "known"
    """``known``: success and reward where they are recorded, and the last observation where there
    is one; ``verdict``: success and reward alone; ``final_observation``: it alone."""


class HindsightSelector(Likelihoods):
    """Scores every step by the log-likelihood per token that it gains from knowing the end."""

    name = "hindsight"

    def __init__(self, options: HindsightOptions, model: str) -> None:
        """``model`` is the base policy; it is loaded when the first trajectory is labelled."""
        super().__init__(model, options.tokens, options.precision)
        self.outcome = options.outcome
        self.version = f"1+tokens={self.tokens},outcome={self.outcome},precision={self.precision}"

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """A score for every step that has a counted token; the others are no candidates.

        Raises:
            CannotLabel: nothing of the end is known, no message opens the run, the tokens cannot
                be told exactly, or the model cannot read so many.
            AtlasError: the model cannot be found or has no chat template.
        """
        told = ending(trajectory, self.outcome)
        scores: dict[int, float] = {}
        reasons: dict[int, str] = {}
        # The longer one first: what cannot be read is not half read.
        after = self.scorer.likelihoods(trajectory, told)
        before = self.scorer.likelihoods(trajectory)
        for blind, knowing in zip(before, after, strict=True):
            step_id = blind.step_id
            if blind.token_ids != knowing.token_ids:
                raise CannotLabel(
                    f"the tokenizer splits step {step_id} differently once the end is told, so "
                    "its two likelihoods cannot be compared"
                )
            counted = blind.counted(self.tokens)
            if not counted:
                reasons[step_id] = "no action could be read in this step"
                continue
            gain = (sum(knowing.counted(self.tokens)) - sum(counted)) / len(counted)
            scores[step_id] = gain
            likelier = "likelier" if gain >= 0 else "less likely"
            reasons[step_id] = (
                f"{abs(gain):.3f} nats per token {likelier} with the end told, over "
                f"{tokens_in_words(len(counted), self.tokens)}"
            )
        return labels_of_scores(trajectory, self.source, scores, reasons)

    def cost(self, trajectories: Iterable[Trajectory]) -> Cost:
        """Two readings of every trajectory."""
        return reading_cost(
            readable_passages(self.model, trajectories, lambda run: (ending(run, self.outcome), ""))
        )


def ending(trajectory: Trajectory, outcome: Known) -> str:
    """What the policy is told of how a run ends.

    Raises:
        CannotLabel: the run records nothing of what is to be told.
    """
    words = []
    verdict = _verdict(trajectory.outcome)
    if outcome != "final_observation" and verdict:
        words.append(verdict)
    last = _last_observation(trajectory)
    if outcome != "verdict" and last:
        words.append(f"The last answer of the environment is: {last}")
    if words:
        return " ".join(words)
    missing = {
        "known": "records neither an outcome nor an observation",
        "verdict": "records no outcome (set outcome to known or final_observation)",
        "final_observation": "records no observation (set outcome to known or verdict)",
    }
    raise CannotLabel(f"it {missing[outcome]}, so nothing can be told of how it ends")


def _verdict(outcome: Outcome) -> str:
    """
    >>> _verdict(Outcome(reward=0.5, success=False))
    'In the end the task is not solved, with reward 0.5.'
    >>> _verdict(Outcome(reward=0.5))
    'In the end the reward is 0.5.'
    """
    if outcome.success is None:
        return "" if outcome.reward is None else f"In the end the reward is {outcome.reward:g}."
    solved = "solved" if outcome.success else "not solved"
    reward = "" if outcome.reward is None else f", with reward {outcome.reward:g}"
    return f"In the end the task is {solved}{reward}."


def _last_observation(trajectory: Trajectory) -> str:
    for step in reversed(trajectory.agent_steps):
        if step.observation is not None and step.observation.text.strip():
            return step.observation.text.strip()
    return ""
