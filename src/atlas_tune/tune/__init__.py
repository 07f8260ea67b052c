"""Training on selected steps: masks, batches, the sparse loss, the trainer."""
