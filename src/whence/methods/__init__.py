"""One file a job. None imports another."""
