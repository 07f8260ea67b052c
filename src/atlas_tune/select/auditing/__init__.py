"""Holding selections against each other, against measured labels and yardsticks."""
