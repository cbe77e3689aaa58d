"""Units that receive credit beyond a model's own: dictionaries of features, and how they are kept in files."""
