"""Data as packed rows of tokens, prepared once and read in part by every worker."""
