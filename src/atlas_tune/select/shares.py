"""Which share of the steps was selected, by kind and environment, and where that is odd.

A selection far from its budget is the visible sign of an oracle that was fooled, that marks
everything, or that does not understand its question.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from atlas_tune.errors import UsageError
from atlas_tune.trajectory import Selection, StepLabel, Trajectory, budget_steps

Range = tuple[float, float]
"""The lowest and highest share that is no reason for alarm."""

NOWHERE = "(no environment)"
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Share:
    """The selected steps of one environment. ``kinds`` holds those of a kind, as shares."""

    environment: str
    trajectories: int
    steps: int
    selected: int
    kinds: Mapping[str, float]
    expected: Range
    is_chosen: bool
    """Whether the user gave ``expected``; else it is one third of the budget to the budget."""

    @property
    def share(self) -> float:
        """Of the steps, those that are selected."""
        return self.selected / self.steps if self.steps else 0.0

    @property
    def alarm(self) -> str | None:
        """A sentence where the share leaves the range that is expected of it."""
        low, high = self.expected
        if low - _ROUNDING <= self.share <= high + _ROUNDING:
            return None
        why = "as given" if self.is_chosen else "a third of the budget to the budget"
        return (
            f"Alarm: {self.share:.1%} of the {self.steps} steps in {self.environment} are "
            f"selected, and {low:.1%} to {high:.1%} are expected ({why}). Look "
            "at some labels before you train on them."
        )


def shares_of(
    trajectories: Iterable[Trajectory],
    selections: Iterable[Selection],
    labels: Iterable[StepLabel],
    budget: float,
    expected: Mapping[str, Range] | None = None,
) -> list[Share]:
    """The shares of every environment, over the trajectories that have a selection.

    What the budget allows is counted step by step: a trajectory of three steps may have one
    selected, which is more than 30%, so that an environment of short runs may exceed the budget's
    own figure and be within its budget all the same.

    Raises:
        UsageError: ``expected`` names an environment that is not among the trajectories.
    """
    chosen = {selection.trajectory_id: selection for selection in selections}
    kinds = {(label.trajectory_id, label.step_id): label.kind for label in labels}
    steps: Counter[str] = Counter()
    allowed: Counter[str] = Counter()
    selected: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    by_kind: dict[str, Counter[str]] = defaultdict(Counter)
    for trajectory in {one.trajectory_id: one for one in trajectories}.values():
        environment = trajectory.environment or NOWHERE
        own = len(trajectory.agent_steps)
        selection = chosen.get(trajectory.trajectory_id)
        counted[environment] += 0
        if selection is None or not own:
            continue
        counted[environment] += 1
        steps[environment] += own
        allowed[environment] += budget_steps(own, budget)
        selected[environment] += len(selection.step_ids)
        for step_id in selection.step_ids:
            kind = kinds.get((trajectory.trajectory_id, step_id))
            by_kind[environment][kind or "no kind"] += 1
    expected = expected or {}
    for name in expected:
        if name not in counted:
            raise UsageError(
                f"A share is expected of '{name}', and no trajectory is of that environment: "
                f"they are of {', '.join(sorted(counted))}."
            )
    found = []
    for environment in sorted(counted):
        of = steps[environment]
        ceiling = allowed[environment] / of if of else 0.0
        found.append(
            Share(
                environment,
                counted[environment],
                of,
                selected[environment],
                {str(kind): count / of for kind, count in sorted(by_kind[environment].items())},
                expected.get(environment, (ceiling / 3, ceiling)),
                environment in expected,
            )
        )
    return found


def parse_expected(pairs: Iterable[str]) -> dict[str, Range]:
    """Ranges as ``ENVIRONMENT=LOW-HIGH``, each a share of the steps: ``textcraft=0.1-0.3``.

    Raises:
        UsageError: one is not of that form.
    """
    found: dict[str, Range] = {}
    for pair in pairs:
        name, _, text = pair.rpartition("=")
        low, _, high = text.partition("-")
        try:
            bounds = float(low), float(high)
        except ValueError:
            bounds = (-1.0, -1.0)
        if not name or not 0 <= bounds[0] <= bounds[1] <= 1:
            raise UsageError(
                f"--expect takes ENVIRONMENT=LOW-HIGH with shares from 0 to 1, such as "
                f"textcraft=0.1-0.3, not '{pair}'."
            )
        found[name] = bounds
    return found
