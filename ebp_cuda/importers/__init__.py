"""Readers of other people's networks; every one gives a `Graph`."""
