"""Bundles that were trained apart as one: how they are heard together, and the bundle that comes of it."""
