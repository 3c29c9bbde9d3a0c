"""What a model hears: the table of features, each a spec and a class."""

from instrunet.features.logmel import LogMel, LogMelSpec

# What `name` may be in `front.features`, and what makes it.
FEATURES = {"logmel": LogMel}
FeatureSpec = LogMelSpec  # becomes a union tagged by `name` with the second feature

__all__ = ["FEATURES", "FeatureSpec", "LogMel", "LogMelSpec"]
