"""Controls: selections that know nothing of criticality, matched to one that does."""
