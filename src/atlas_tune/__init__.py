"""ATLaS: tune language-model agents on the critical steps of expert trajectories."""

__version__ = "0.1.0"
