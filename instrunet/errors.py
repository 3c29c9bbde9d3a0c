"""What can go wrong by a user's hand: one type per kind, each message says expected, came, change."""


class InstrunetError(Exception):
    """A mistake the user can mend; jobs print its message alone and exit with `exit_code`."""

    exit_code = 2


class ConfigError(InstrunetError):
    """A field, value or argument that no configuration may hold."""


class AudioError(InstrunetError):
    """A file that does not hold the sound it should."""


class DataError(InstrunetError):
    """A corpus, manifest or folder that cannot be used as asked."""


class BundleError(InstrunetError):
    """A model folder that is not whole, not ours or not of this version."""


class JobError(InstrunetError):
    """Work that was asked for rightly and could not be done."""

    exit_code = 1
