"""Dictionaries in files, one module a format: how to tell it by its files, and how to read it."""
