"""Statistics that a reviewer accepts: intervals, paired tests, power, and verdicts in words."""

from atlas_tune.evaluate.statistics.bootstrap import bootstrap_difference
from atlas_tune.evaluate.statistics.crossed import (
    Crossed,
    Spread,
    bootstrap_crossed,
    crossed,
    spread,
)
from atlas_tune.evaluate.statistics.differences import Runs, paired_differences
from atlas_tune.evaluate.statistics.equivalence import Equivalence, tost, tost_bootstrap
from atlas_tune.evaluate.statistics.finding import Finding, verdict, verdicts
from atlas_tune.evaluate.statistics.intervals import (
    clopper_pearson_interval,
    score_interval,
    wilson_interval,
)
from atlas_tune.evaluate.statistics.multiplicity import holm
from atlas_tune.evaluate.statistics.paired import PairedTest, Verdict, exact_mcnemar, sign_flips
from atlas_tune.evaluate.statistics.power import (
    Needed,
    detectable_effect,
    needed,
    paired_power,
    tasks_needed,
)

__all__ = [
    "Crossed",
    "Equivalence",
    "Finding",
    "Needed",
    "PairedTest",
    "Runs",
    "Spread",
    "Verdict",
    "bootstrap_crossed",
    "bootstrap_difference",
    "clopper_pearson_interval",
    "crossed",
    "detectable_effect",
    "exact_mcnemar",
    "holm",
    "needed",
    "paired_differences",
    "paired_power",
    "score_interval",
    "sign_flips",
    "spread",
    "tasks_needed",
    "tost",
    "tost_bootstrap",
    "verdict",
    "verdicts",
    "wilson_interval",
]
