"""``python -m atlas_tune``."""

from atlas_tune.cli import main

main()
