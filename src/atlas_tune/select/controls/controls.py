"""Controls: selections that know nothing of criticality, for critical ones to be held against.

``all`` is plain imitation of the expert. ``random`` and ``complement`` are the paper's "random
30%" and "non-critical 30%". ``first`` and ``last`` show how far position alone goes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from atlas_tune.select.base import Alone, CannotLabel, labels_of_scores
from atlas_tune.trajectory import Kind, Selection, StepLabel, Trajectory
from atlas_tune.trajectory.canonical import canonical_json
from atlas_tune.trajectory.selection import dump_selection


class AllSteps(Alone):
    """Every step, whatever the budget."""

    name = "all"
    share: float | None = 1.0

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """Every agent step as a candidate, all alike."""
        scores = dict.fromkeys((step.step_id for step in trajectory.agent_steps), 1.0)
        return labels_of_scores(trajectory, self.source, scores)


class FirstSteps(Alone):
    """The earliest steps."""

    name = "first"

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """Scores that fall from 1 at the first agent step towards 0."""
        own = trajectory.agent_steps
        scores = {step.step_id: 1.0 - place / len(own) for place, step in enumerate(own)}
        return labels_of_scores(trajectory, self.source, scores)


class LastSteps(Alone):
    """The latest steps."""

    name = "last"

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """Scores that rise to 1 at the last agent step."""
        own = trajectory.agent_steps
        scores = {step.step_id: (place + 1) / len(own) for place, step in enumerate(own)}
        return labels_of_scores(trajectory, self.source, scores)


class RandomSteps(Alone):
    """Steps drawn at random: as many as the budget allows, or as many as another arm took.

    Critical selectors often take fewer steps than they may. With ``other``, the selection of
    that arm, this control supervises exactly as many steps as it does, trajectory by trajectory.
    """

    name = "random"

    def __init__(self, seed: int = 0, other: Iterable[Selection] | None = None) -> None:
        self.seed = seed
        self._other = None if other is None else by_id(other)
        self.version = f"1+seed={seed}"
        if self._other is not None:
            # The other arm sets the number; the common budget must not cut it again.
            self.share = 1.0
            self.version += f",other={fingerprint(self._other.values())}"

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """A draw for every step; where another arm sets the number, the others are no candidates.

        Raises:
            CannotLabel: the other arm has no selection of this trajectory.
        """
        own = [step.step_id for step in trajectory.agent_steps]
        draws = draws_of(self.name, self.seed, trajectory.trajectory_id, own)
        wanted = len(own)
        if self._other is not None:
            wanted = len(selection_of(self._other, trajectory).step_ids)
        drawn = sorted(own, key=lambda step_id: -draws[step_id])[:wanted]
        return [
            StepLabel(
                trajectory.trajectory_id,
                step_id,
                None if step_id in drawn else Kind.NONE,
                self.source,
                draws[step_id],
            )
            for step_id in own
        ]


class ComplementSteps(Alone):
    """Steps drawn at random among those that another arm left out, as many as it took.

    The paper's "non-critical 30%" says neither how many steps it takes nor which. Here the
    number of supervised steps is matched trajectory by trajectory, so that the two arms differ
    in *which* steps they train on and in nothing else. Where the other arm took more than half
    of the steps, all that it left are taken; where it took all of them, none.
    """

    name = "complement"
    share: float | None = 1.0

    def __init__(self, other: Iterable[Selection], seed: int = 0) -> None:
        self.seed = seed
        self._other = by_id(other)
        self.version = f"1+seed={seed},other={fingerprint(self._other.values())}"

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """The drawn steps as candidates; the other arm's steps and those not drawn are none.

        Raises:
            CannotLabel: the other arm has no selection of this trajectory.
        """
        own = [step.step_id for step in trajectory.agent_steps]
        draws = draws_of(self.name, self.seed, trajectory.trajectory_id, own)
        taken = set(selection_of(self._other, trajectory).step_ids)
        left = sorted((i for i in own if i not in taken), key=lambda step_id: -draws[step_id])
        drawn = left[: len(taken)]
        return [
            StepLabel(
                trajectory.trajectory_id,
                step_id,
                None if step_id in drawn else Kind.NONE,
                self.source,
                draws[step_id],
                reason="selected by the other arm" if step_id in taken else None,
            )
            for step_id in own
        ]


def draws_of(name: str, seed: int, trajectory_id: str, step_ids: Iterable[int]) -> dict[int, float]:
    """A number in [0, 1) for every step, the same on every machine and in every process.

    SHA-256 and not :func:`hash`, which Python salts per process. The selector's name goes in, so
    that two controls with one seed are independent draws.
    """
    draws = {}
    for step_id in step_ids:
        text = f"{name}:{seed}:{trajectory_id}:{step_id}"
        # 53 bits: as many as a float holds exactly, so 1.0 cannot come out.
        draws[step_id] = (
            int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11
        ) / 2**53
    return draws


def by_id(selections: Iterable[Selection]) -> dict[str, Selection]:
    """Selections by the id of their trajectory."""
    return {selection.trajectory_id: selection for selection in selections}


def selection_of(selections: dict[str, Selection], trajectory: Trajectory) -> Selection:
    """The other arm's selection of a trajectory.

    Raises:
        CannotLabel: there is none.
    """
    try:
        return selections[trajectory.trajectory_id]
    except KeyError:
        raise CannotLabel(
            "the other arm has no selection of this trajectory, so no control can be matched to "
            "it: select with the other arm first, on the same trajectories"
        ) from None


def fingerprint(selections: Iterable[Selection]) -> str:
    """A short hash of selections, whatever their order."""
    records = sorted(canonical_json(dump_selection(selection)) for selection in selections)
    return hashlib.sha256("\n".join(records).encode()).hexdigest()[:12]
