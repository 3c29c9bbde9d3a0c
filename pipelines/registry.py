"""Bundles by the names that MLflow gives them: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `runs:/ID/bundle`."""

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import instrunet
from instrunet.bundle import Bundle
from instrunet.errors import BundleError, ConfigError
from pipelines.outbox import calm

REGISTERED = re.compile(r"(models|runs):/")
EMBEDDED = Path("runs/mlflow.db")  # where jobs keep their record if nothing else is said


def load(name: Path | str, runtime: str = "torch") -> Bundle:
    """A bundle by its folder, its URL or its name in the registry."""
    if not REGISTERED.match(str(name)):
        bundle = instrunet.load(name)
    else:
        with TemporaryDirectory(prefix="instrunet-") as folder:
            bundle = instrunet.load(fetched(str(name), Path(folder)))
    return bundle if runtime == "torch" else bundle.on(runtime)


def fetched(name: str, folder: Path) -> Path:
    """Download a registered bundle into `folder`."""
    from pipelines.tracking import CALM, NOISY  # with all that an experiment is: 0.5 s

    uri = store()
    with calm(CALM | {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}, NOISY):
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        try:
            return Path(download_artifacts(name, dst_path=str(folder), tracking_uri=uri, registry_uri=uri))
        except (MlflowException, OSError) as error:
            told = " ".join(str(error).split())[:200]
            raise BundleError(f"{name} cannot be had from MLflow at {shown(uri)}: {told}") from None


def store() -> str:
    """Where MLflow keeps the models: what the environment says, or the embedded store of `runs`."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or (f"sqlite:///{EMBEDDED.resolve()}" if EMBEDDED.is_file() else "")
    if not uri:
        raise ConfigError(f"expected MLFLOW_TRACKING_URI or {EMBEDDED} for a name of the registry, found neither")
    return uri


def shown(uri: str) -> str:
    return re.sub(r"(?<=://)[^/]*@", "", uri)


class Models:
    """The versions of one registered model."""

    def __init__(self, name: str) -> None:
        from pipelines.tracking import CALM, NOISY

        self.name, self.uri = name, store()
        with calm(CALM, NOISY):  # the import too: it is what would count us
            from mlflow import MlflowClient

            self._client = MlflowClient(self.uri, self.uri)

    def version(self, alias: str) -> str | None:
        held = self.aliases().get(alias)
        return None if held is None else str(held)

    def aliases(self) -> dict[str, str]:
        from mlflow.exceptions import MlflowException

        from pipelines.tracking import CALM, NOISY

        with calm(CALM, NOISY):
            try:
                return dict(self._client.get_registered_model(self.name).aliases)
            except MlflowException as error:
                told = " ".join(str(error).split())[:200]
                raise ConfigError(f"expected a registered model {self.name} at {shown(self.uri)}: {told}") from None

    def move(self, alias: str, version: str) -> None:
        from pipelines.tracking import CALM, NOISY

        with calm(CALM, NOISY):
            self._client.set_registered_model_alias(self.name, alias, version)
