"""What the jobs share: directions pulled back through norms and writers, and the ledgers they fill."""
