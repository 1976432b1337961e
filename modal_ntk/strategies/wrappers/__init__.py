"""Strategies made of strategies: on part of a pool, in shards, or one after another."""
