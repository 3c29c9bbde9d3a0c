"""A model's evaluation as a folder to keep: `metrics.json` for programs, `index.html` for people."""
