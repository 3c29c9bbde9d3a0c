"""Export of a bundle: one file that runs without code of ours, and which runtimes decide as the bundle does."""

import argparse
from pathlib import Path

from instrunet import export, parity
from instrunet.archive import sources
from instrunet.audio.io import DecodeError, Sound
from instrunet.bundle import Bundle
from instrunet.bundle_files import publish
from instrunet.data import places
from instrunet.errors import ConfigError, DataError
from pipelines import registry
from pipelines.console import note, result

MOST = 200  # clips: more change a share of changed decisions by less than it says


def run(args: argparse.Namespace) -> Path:
    """`model.onnx`; with `--clips` a `bundle` beside it that knows which runtimes may stand for it."""
    export.require()
    folder: Path = args.out
    if args.clips and (folder / "bundle").exists():
        raise ConfigError(f"{folder / 'bundle'} is there already; give another --out")
    bundle = registry.load(args.bundle)
    clips = _clips(bundle, places.asked(args.clips)) if args.clips else []
    try:
        path, difference = export.to_onnx(bundle, folder, clips, args.external_weights)
        size = path.stat().st_size + ((folder / export.DATA).stat().st_size if args.external_weights else 0)
        told = f"exported {size / 1e6:.1f} MB, opset {export.OPSET}, largest difference {difference:.1e}"
        result(f"{told} on noise" + (f" and {len(clips)} clips" if clips else ""))
    except ConfigError as error:
        if not clips:
            raise
        note(f"no model.onnx: {error}")  # runtimes take the network alone, whatever the front end
        path = folder / "bundle"
    if clips:
        noted = parity.noted(bundle, clips)
        for found in noted.spec.runtimes:
            changed = f"{found.changed} of {found.n_clips} decisions changed"
            result(f"{found.runtime} {found.precision}: largest difference {found.largest:.1e}, {changed}")
        folder.mkdir(parents=True, exist_ok=True)
        publish(noted.save, folder / "bundle")
    return path


def _clips(bundle: Bundle, folder: Path) -> list[Sound]:
    """Evenly from all of a folder."""
    files = [file.path for file in sources.archive(folder).files()]
    if not files:
        raise DataError(f"expected sounds under --clips {folder}, found none")
    found = []
    for path in files[:: max(1, len(files) // MOST)][:MOST]:
        try:
            found.append(bundle.read(path))
        except DecodeError as error:
            note(f"left out: {error}")
    return found
