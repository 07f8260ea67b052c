"""The drawings of the report, each a function of the results."""

from atlas_tune.report.figures.cost import cost_panels
from atlas_tune.report.figures.ends import ENDS, end_panels
from atlas_tune.report.figures.losses import loss_panels, points_shown, running_mean
from atlas_tune.report.figures.marks import short
from atlas_tune.report.figures.positions import position_panel, position_panels
from atlas_tune.report.figures.ratio import ratio_arms, ratio_panels
from atlas_tune.report.figures.rewards import reward_panels
from atlas_tune.report.figures.scores import success_panels

__all__ = [
    "ENDS",
    "cost_panels",
    "end_panels",
    "loss_panels",
    "points_shown",
    "position_panel",
    "position_panels",
    "ratio_arms",
    "ratio_panels",
    "reward_panels",
    "running_mean",
    "short",
    "success_panels",
]
