"""Disagreement: where the base policy would do something else, or does not know what to do.

For every step, with the run's own conversation before it and no environment:

- ``differs`` is 1 where the policy's greedy action is not the expert's, else 0;
- ``entropy`` is −Σ_a p(a) ln p(a) in nats, with p(a) the share of k sampled replies whose action
  is a. It lies between 0 and ln k. A reply without a readable action is an action of its own.

CARL (arXiv 2512.04949) takes a high entropy of the actions for a critical step. A step that the
policy takes by itself has nothing to teach; one where it disagrees may teach something, or may be
a matter of taste: disagreement says nothing of the return. With few samples the entropy is too
low on average, by about (number of actions − 1) / 2k nats (Miller 1955), alike for all steps with
as many actions.

A step with score 0 is no candidate: the policy does what the expert did, without a doubt.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import Field

from atlas_tune.agents.making import ConversationTooLong, PolicyMaker
from atlas_tune.agents.react import parse_turn
from atlas_tune.agents.resume import CannotResume, Place, conversation, recorded_actions
from atlas_tune.agents.streams import episode_key
from atlas_tune.select.base import CannotLabel, Cost
from atlas_tune.select.rollouts.acting import Acting, ActingOptions
from atlas_tune.trajectory import Kind, StepLabel, Trajectory
from atlas_tune.trajectory.messages import Message

Measure = Literal["differs", "entropy", "both"]
_DECIMALS = 6


class DisagreementOptions(ActingOptions):
    """The settings of ``disagreement``."""

    model: str | None = None
    """The base policy π₀: a hub id, a directory or a GGUF file; the run's own unless named."""
    measure: Measure = "both"
    """``differs``: 1 where the greedy action is not the expert's; ``entropy``: of the sampled
    actions, in nats; ``both``: differs + entropy / ln k, from 0 to 2."""
    samples: int = Field(4, ge=2)
    """k, the sampled replies of a step."""
    temperature: float = Field(1.0, gt=0)
    """Of the sampled replies."""


class DisagreementSelector(Acting):
    """Scores every step by how far the base policy's own actions are from the expert's."""

    name = "disagreement"

    def __init__(self, options: DisagreementOptions, policies: PolicyMaker) -> None:
        """``policies`` makes the base policy, greedy and sampling."""
        super().__init__(options, policies)
        self.options = options

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """A label for every agent step: a candidate where its score is above 0.

        Raises:
            CannotLabel: the run acts through tool calls, starts with an agent step, or is longer
                than the model can read.
            AtlasError: the model cannot be had.
        """
        try:
            expert = recorded_actions(trajectory)
            asked = {
                t: conversation(Place(trajectory, t))
                for t, action in enumerate(expert)
                if action is not None
            }
            greedy = self._greedy(trajectory, asked)
            sampled = self._sampled(trajectory, asked)
        except (CannotResume, ConversationTooLong) as error:
            raise CannotLabel(str(error)) from error
        labels = []
        for t, (step, action) in enumerate(zip(trajectory.agent_steps, expert, strict=True)):
            score, reason = 0.0, "no action could be read in this step"
            if action is not None:
                score, reason = self._judge(action, greedy.get(t), sampled.get(t, ()))
            kind = None if score > 0 else Kind.NONE
            labels.append(
                StepLabel(trajectory.trajectory_id, step.step_id, kind, self.source, score, reason)
            )
        return labels

    def cost(self, trajectories: Iterable[Trajectory]) -> Cost:
        """The tokens written at most: one greedy and k sampled replies a step, as measured."""
        replies = self._passes("greedy") + self._passes("sampled") * self.options.samples
        written = 0
        for trajectory in trajectories:
            try:
                actions = recorded_actions(trajectory)
                conversation(Place(trajectory, 0))
            except CannotResume:
                continue
            steps = sum(action is not None for action in actions)
            written += steps * replies * self.options.max_new_tokens
        return Cost(written_tokens=written)

    def _passes(self, which: Literal["greedy", "sampled"]) -> bool:
        """Whether the measure needs the greedy reply, or the samples."""
        return self.options.measure != ("entropy" if which == "greedy" else "differs")

    def _greedy(
        self, trajectory: Trajectory, asked: Mapping[int, Sequence[Message]]
    ) -> dict[int, str]:
        if not self._passes("greedy"):
            return {}
        return {t: reply for (t, _), reply in self._ask(trajectory, asked, 0.0, 1).items()}

    def _sampled(
        self, trajectory: Trajectory, asked: Mapping[int, Sequence[Message]]
    ) -> dict[int, list[str]]:
        if not self._passes("sampled"):
            return {}
        k = self.options.samples
        replies = self._ask(trajectory, asked, self.options.temperature, k)
        return {t: [replies[t, sample] for sample in range(k)] for t in asked}

    def _ask(
        self,
        trajectory: Trajectory,
        asked: Mapping[int, Sequence[Message]],
        temperature: float,
        replies: int,
    ) -> dict[tuple[int, int], str]:
        """Some replies to each conversation, by (place, number of the reply)."""
        policy = self._policies(self.options.seed, temperature)
        wanted = [(t, sample) for t in asked for sample in range(replies)]
        found: dict[tuple[int, int], str] = {}
        for start in range(0, len(wanted), self.options.batch_size):
            batch = {
                episode_key(f"{trajectory.trajectory_id}:{sample}", str(t)): (t, sample)
                for t, sample in wanted[start : start + self.options.batch_size]
            }
            answers = policy.replies({key: asked[t] for key, (t, _) in batch.items()})
            found.update({batch[key]: answer for key, answer in answers.items()})
        return found

    def _judge(self, expert: str, greedy: str | None, sampled: Sequence[str]) -> tuple[float, str]:
        """The score of a step and its reason, from the replies that the measure needs."""
        score, reasons = 0.0, []
        if greedy is not None:
            action = parse_turn(greedy).action
            same = action is not None and normalised(action) == normalised(expert)
            score += not same
            reasons.append(_greedy_words(action, same))
        if sampled:
            actions = [parse_turn(reply).action for reply in sampled]
            found = [None if action is None else normalised(action) for action in actions]
            nats = entropy(found)
            both = self.options.measure == "both"
            score += nats / math.log(len(found)) if both else nats
            reasons.append(_sampled_words(found, normalised(expert), nats))
        return round(score, _DECIMALS), "; ".join(reasons)


def normalised(action: str) -> str:
    """An action as it is compared: case, runs of white space and a closing full stop aside.

    >>> normalised(" Get  1 Stick. ")
    'get 1 stick'
    """
    return " ".join(action.casefold().split()).removesuffix(".").rstrip()


def entropy(actions: Sequence[str | None]) -> float:
    """−Σ p ln p over the shares of equal actions, in nats; None is an action like any other.

    >>> round(entropy(["a", "a", "b", None]), 4)
    1.0397
    """
    shares = [count / len(actions) for count in Counter(actions).values()]
    # abs: the sum of a single share is -0.0.
    return abs(sum(share * math.log(share) for share in shares))


def _greedy_words(action: str | None, same: bool) -> str:
    if same:
        return "the policy takes the same action"
    if action is None:
        return "the policy writes no readable action"
    return f"the policy would '{_short(action)}'"


def _sampled_words(found: Sequence[str | None], expert: str, nats: float) -> str:
    words = f"entropy {nats:.2f} nats over {len(found)} samples, {found.count(expert)} the expert's"
    unreadable = found.count(None)
    return words + (f", {unreadable} without an action" if unreadable else "")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
