"""What a bundle knows of the data that it is to be scored on."""

from pathlib import Path

import pandas as pd

from instrunet.bundle import Bundle
from instrunet.data import manifest
from instrunet.errors import DataError
from pipelines import audit


def leaks(frame: pd.DataFrame, bundle: Bundle) -> list[str]:
    """What of this data the bundle has learnt from: its recordings by name, its files by content; or that the bundle
    was made of leaky data itself."""
    trained = bundle.spec.trained
    found = [f"the bundle was trained on leaky data ({trained.leaky})"] if trained.leaky else []
    groups = manifest.group_keys(frame) & set(trained.group_keys)
    if groups:
        found.append(f"{len(groups)} of {len(manifest.group_keys(frame))} groups were trained on")
    known = set(trained.clip_hashes)
    n_files = int(frame["sha256"].map(lambda h: bool(h) and h[:16] in known).sum())
    if n_files:
        found.append(f"{n_files} of {len(frame)} clips are byte for byte in the training data")
    return found


def heard(frame: pd.DataFrame, bundle: Bundle, folder: Path) -> list[str]:
    """What the bundle has heard under another name and in another container; known files are said already."""
    files, samples = set(bundle.spec.trained.clip_hashes), set(bundle.spec.trained.sample_hashes)
    new = set(frame.loc[~frame["sha256"].str[:16].isin(files), "clip_id"])
    n = sum(name in new and hash_ in samples for name, hash_ in audit.hashes_of(audit.prints_of(folder)).items())
    return [f"{n} of {len(frame)} clips are sample for sample in the training data"] if n else []


def refuse(found: list[str], allowed: bool) -> None:
    if found and not allowed:
        raise DataError(
            f"{'; '.join(found)}: a score on it would flatter the model; evaluate on other recordings (a CONFIG's own "
            "test split is one), or give --allow-leaks to have it labelled LEAKY"
        )
