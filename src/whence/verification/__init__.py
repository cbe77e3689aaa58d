"""Hold a graph's predictions against the model: `verify` intervenes on its nodes and compares."""
