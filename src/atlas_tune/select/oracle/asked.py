"""What asking an oracle came to: calls, tokens, cost, and the share of steps that it selected."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from atlas_tune.llm.prices import told
from atlas_tune.select.shares import Share


@dataclass(frozen=True, slots=True)
class Asked:
    """The figures of one run of one oracle."""

    calls: int
    """Requests that left, each time counted."""
    cached: int
    """Answers that came from the journal."""
    retried: int
    failed: int
    unknown: int
    """Calls of which nobody can know whether they were paid for, of earlier runs too."""
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    """What the run has cost; null where the price is unknown."""
    usd_in_all: float | None
    """What everything that counts against the budget has cost, earlier runs too."""
    budget_usd: float | None
    unpriced: int
    """Calls that have no known price, and so no part in these sums."""
    seconds: float
    environments: tuple[Share, ...]

    def record(self) -> dict[str, Any]:
        """The figures as JSON values, the alarms as sentences."""
        return {
            **asdict(self),
            "environments": [
                {
                    **asdict(one),
                    "expected": list(one.expected),
                    "share": one.share,
                    "alarm": one.alarm,
                }
                for one in self.environments
            ],
        }

    def sentences(self) -> list[str]:
        """The figures for a person; alarms come last."""
        return [
            f"{self.calls} calls, {self.cached} answers from the journal, {self.retried} retried, "
            f"{self.failed} failed, {self.unknown} of unknown fate; {self.prompt_tokens:,} prompt "
            f"and {self.completion_tokens:,} completion tokens; {told(self.usd)}, "
            f"{told(self.usd_in_all)} in all{self._of_budget()}; {self.seconds:.0f} s",
            *self._unpriced(),
            *(_share(one) for one in self.environments),
            *(one.alarm for one in self.environments if one.trajectories and one.alarm),
        ]

    def _of_budget(self) -> str:
        return "" if self.budget_usd is None else f" of {told(self.budget_usd)}"

    def _unpriced(self) -> list[str]:
        if not self.unpriced:
            return []
        return [f"{self.unpriced} calls have no known price and are not in these sums."]


def _share(one: Share) -> str:
    kinds = ", ".join(f"{kind} {part:.1%}" for kind, part in one.kinds.items())
    return f"{one.environment}: {one.share:.1%} of {one.steps} steps ({kinds or 'none'})"
