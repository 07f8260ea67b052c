"""Wordle: guess a hidden word of five letters, by AgentGym's rule (Xi et al., 2406.04151)."""

from atlas_tune.environments.wordle.env import Wordle

__all__ = ["Wordle"]
