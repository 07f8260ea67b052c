"""ALFWorld: household tasks in words (Shridhar et al., ICLR 2021, arXiv 2010.03768)."""

from atlas_tune.environments.alfworld.env import AlfWorld

__all__ = ["AlfWorld"]
