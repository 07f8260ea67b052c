"""TextCraft: craft a goal item from given crafting commands (Prasad et al., ADaPT, 2023)."""

from atlas_tune.environments.textcraft.env import TextCraft

__all__ = ["TextCraft"]
