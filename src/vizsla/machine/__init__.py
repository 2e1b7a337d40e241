"""The machine that Vizsla runs on: what it has, how fast it is, and whether that will do."""
