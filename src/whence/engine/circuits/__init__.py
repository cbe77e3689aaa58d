"""Sparse circuits: units at sites, their effects on a metric, and the direct edges between them."""
