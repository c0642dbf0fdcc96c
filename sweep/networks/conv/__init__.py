"""Convolutional networks, with a leading axis of runs."""
