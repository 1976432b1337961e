"""The labelling loop played on labelled data: its rounds, when it stops, and the memory it took."""
