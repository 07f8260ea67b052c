"""ScienceWorld: experiments of a school's science lessons in words (arXiv 2203.07540)."""

from atlas_tune.environments.scienceworld.env import ScienceWorld

__all__ = ["ScienceWorld"]
