"""What whence returns: plain data that prints, saves and opens again without a model or transformers."""
