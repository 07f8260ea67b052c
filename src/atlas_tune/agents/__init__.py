"""Policies that act in environments: prompting, parsing, rollouts."""
