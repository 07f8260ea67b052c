"""Selectors that let the base policy act: its own actions, and how runs go on from a step."""
