"""What scores are worth: one module per kind of task, with the same verbs `validate` and `evaluate` in each."""
