"""Turn archives of sound into labels one can trust."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instrunet.bundle import Bundle

__version__ = "0.1.0"


def load(path: Path | str) -> "Bundle":
    """A trained model as a function: `instrunet.load("runs/.../bundle")("song.wav")`; a folder, or its URL (`s3://`).

    A registered model (`models:/NAME@champion`, `runs:/ID/bundle`) is MLflow's to fetch: `pipelines.registry.load`.
    """
    from instrunet.bundle import Bundle  # torch loads here, not on `import instrunet`
    from instrunet.data.places import asked
    from instrunet.errors import ConfigError

    if str(path).startswith(("models:", "runs:")):
        raise ConfigError(
            f"expected a folder or a URL of a bundle, got {path}: fetch a registered one by "
            "pipelines.registry.load, or mlflow.artifacts.download_artifacts(uri) and load the folder"
        )
    return Bundle.load(asked(str(path)) if isinstance(path, str) else path)
