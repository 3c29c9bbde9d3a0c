"""Corpora, manifests, splits, and the rule by which many workers write one folder."""
