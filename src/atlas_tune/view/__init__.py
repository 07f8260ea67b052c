"""The page on which people read trajectories, and correct labels or give their own."""
