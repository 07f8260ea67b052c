"""The recipe: one YAML file that says everything about a run.

Unknown keys are refused with the nearest valid one; every field has its meaning beside it. Paths
are relative to the recipe file.
"""

from atlas_tune.recipe.arms import ArmSettings, OracleSettings
from atlas_tune.recipe.audit import AuditSettings
from atlas_tune.recipe.data import Collect, HabitSettings, Import, Source
from atlas_tune.recipe.evaluation import EvaluateOn, EvaluateSettings
from atlas_tune.recipe.reading import load_recipe
from atlas_tune.recipe.section import ShareOfSteps
from atlas_tune.recipe.whole import SEED_LIMIT, Recipe

__all__ = [
    "SEED_LIMIT",
    "ArmSettings",
    "AuditSettings",
    "Collect",
    "EvaluateOn",
    "EvaluateSettings",
    "HabitSettings",
    "Import",
    "OracleSettings",
    "Recipe",
    "ShareOfSteps",
    "Source",
    "load_recipe",
]
