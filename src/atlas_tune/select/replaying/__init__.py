"""Selectors that play recorded actions again: necessity by removal, rises of the reward."""
