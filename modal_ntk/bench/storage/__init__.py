"""What a study leaves behind: the SQLite file of its rounds, and the manifest of what made them."""
