"""BabyAI: goals in words in a grid of rooms, with AgentGym's actions and observations."""

from atlas_tune.environments.babyai.env import BabyAI

__all__ = ["BabyAI"]
