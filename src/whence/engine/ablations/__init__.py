"""Circuits run alone: the model with all units, or all edges, but the chosen ones ablated, and scores of that."""
