"""What the command line does apart from comparing: list strategies, look at the installation, begin a plugin."""
