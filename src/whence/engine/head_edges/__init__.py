"""Direct edges between token embeddings, queries, keys and values of heads, MLPs and the metric, in head space."""
