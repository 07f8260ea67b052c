"""An arm's score in an environment, over its seeds: one cell of the main table."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from atlas_tune.report import wording
from atlas_tune.report.results import Arm, Environment, Interval, Result, Results


@dataclass(frozen=True, slots=True)
class Score:
    """What one arm scored in one environment.

    With one seed the ranges are the 95% intervals over tasks. With several they are the lowest
    and the highest seed: pooling the seeds into one interval would count every task as often as
    there are seeds, and so promise more than was measured.
    """

    arm: Arm
    environment: Environment
    runs: tuple[Result, ...]

    @property
    def several(self) -> bool:
        """Whether there is more than one seed."""
        return len(self.runs) > 1

    @property
    def success_rate(self) -> float:
        """The success rate, a mean over seeds."""
        return fmean(run.success_rate for run in self.runs)

    @property
    def success_range(self) -> Interval:
        """The interval of one seed, or the lowest and highest of several."""
        return (
            self.runs[0].interval
            if not self.several
            else _ends([run.success_rate for run in self.runs])
        )

    @property
    def mean_reward(self) -> float:
        """The mean reward, a mean over seeds."""
        return fmean(run.mean_reward for run in self.runs)

    @property
    def reward_range(self) -> Interval | None:
        """The interval of one seed, or the lowest and highest of several."""
        if self.several:
            return _ends([run.mean_reward for run in self.runs])
        return self.runs[0].reward_interval

    @property
    def value(self) -> float:
        """What the environment's metric asks for."""
        by_reward = self.environment.metric == "reward"
        return self.mean_reward if by_reward else self.success_rate

    @property
    def written(self) -> str:
        """The value in words: ``64.0% success`` or ``mean reward 0.512``."""
        if self.environment.metric == "reward":
            return f"mean reward {wording.decimal(self.mean_reward)}"
        return f"{wording.percent(self.success_rate)} success"

    @property
    def success_range_written(self) -> str:
        """The success range; a range of seeds says so."""
        return self._of_seeds(wording.percent_range(self.success_range))

    @property
    def reward_range_written(self) -> str:
        """The reward range; a range of seeds says so; empty where there is none."""
        return self._of_seeds(wording.decimal_range(self.reward_range)) if self.reward_range else ""

    @property
    def range_written(self) -> str:
        """The range of the value, saying what kind of range it is."""
        by_reward = self.environment.metric == "reward"
        ends = self.reward_range_written if by_reward else self.success_range_written
        return ends if self.several else f"95% interval {ends}" if ends else "no interval"

    def _of_seeds(self, ends: str) -> str:
        return f"{len(self.runs)} seeds {ends}" if self.several else ends


def _ends(values: list[float]) -> Interval:
    return min(values), max(values)


def score_of(results: Results, arm: Arm, environment: Environment) -> Score | None:
    """The score of an arm in an environment; None if it was not evaluated there."""
    found = (arm.name, environment.name)
    runs = tuple(run for run in results.results if (run.arm, run.environment) == found)
    return Score(arm, environment, runs) if runs else None


def scores_in(results: Results, environment: Environment) -> list[Score]:
    """The scores of all arms in an environment, in the order of the arms."""
    scores = (score_of(results, arm, environment) for arm in results.arms)
    return [score for score in scores if score is not None]
