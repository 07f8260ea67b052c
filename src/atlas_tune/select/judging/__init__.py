"""The local judge: a model is asked of each step whether it is critical."""
