"""Running a recipe: its stages, what is done, and the results of it all."""

from atlas_tune.pipeline.experiment import Experiment, Only
from atlas_tune.pipeline.layout import Layout
from atlas_tune.pipeline.manifest import Manifest
from atlas_tune.pipeline.run import report_recipe, run_recipe

__all__ = ["Experiment", "Layout", "Manifest", "Only", "report_recipe", "run_recipe"]
