"""Numbers made of rounds: curves, areas, tests and ranks."""
