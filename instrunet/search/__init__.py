"""Studies, as far as they need no cluster: the space, what is drawn from it, and what its trials have shown."""
