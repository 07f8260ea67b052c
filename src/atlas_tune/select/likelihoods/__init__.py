"""Selectors that ask the base policy how likely the expert's steps are."""
