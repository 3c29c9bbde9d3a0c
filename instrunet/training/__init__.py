"""The trainer: one process's share of a run. It knows torch and nothing of where it runs."""
