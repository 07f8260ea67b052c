"""One file per target format: trajectories and selections in, records out."""
