"""Carrying out a protocol: cells handed to processes, resumed, watched and verified."""
