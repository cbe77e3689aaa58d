"""Change something inside a model while it runs, and see what follows: `intervene`, and `generate` with the same."""
