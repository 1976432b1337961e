"""The strategies that the papers compare with."""
