"""Turn archives of sound into labels one can trust."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instrunet.bundle import Bundle

__version__ = "0.1.0"


def load(path: Path | str) -> "Bundle":
    """A trained model as a function: `instrunet.load("runs/.../bundle")("song.wav")`."""
    from instrunet.bundle import Bundle  # torch loads here, not on `import instrunet`

    return Bundle.load(Path(path))
