"""Processes of one run: what they say to each other, and how they share a model."""
