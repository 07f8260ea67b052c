"""Scoring rollouts, and statistics that a reviewer accepts."""
