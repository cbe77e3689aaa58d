"""Sums over a dataset of how much each unit of a model feeds each other."""
