"""The stages of a run, in order; each is a function over files."""

from atlas_tune.pipeline.run import run_recipe

__all__ = ["run_recipe"]
