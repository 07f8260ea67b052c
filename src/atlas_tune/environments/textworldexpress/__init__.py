"""TextWorldExpress: eight kinds of fast text games (arXiv 2208.01174)."""

from atlas_tune.environments.textworldexpress.env import TextWorldExpress

__all__ = ["TextWorldExpress"]
