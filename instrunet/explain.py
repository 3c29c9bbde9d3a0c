"""Why a network answers as it does: where it looks, which bands it needs, how it arranges sounds.

Shapes: N windows, C channels, F bands, L frames, K labels, E numbers of an embedding.
"""

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from instrunet.bundle import Bundle
from instrunet.features import FRAME_FEATURES
from instrunet.features.featurizer import alike
from instrunet.features.shards import Features
from instrunet.models import Network

Array = NDArray[np.float32]
STRIPS = 12
FEWEST_CELLS = 16  # of a map that says where: a squeeze's 1 x 1 does not
FEWEST_POINTS, PERPLEXITY, NEIGHBOURS = 8, 30, 15


@dataclass(frozen=True)
class Strip:
    """Bands [first, stop) of a feature, and how far the mean score of the true labels falls without them."""

    feature: str
    first: int
    stop: int
    fall: float


def looked_at(bundle: Bundle, held: Features, labels: NDArray[np.int64]) -> list[Array] | None:
    """Where each of the N windows speaks for its label, 0 to 1 over its bands and own frames [F, L]: Grad-CAM.

    The maps of the last convolution, weighted by the mean gradient of the label's logit, what is negative left out
    (Selvaraju et al., 2017); of an ensemble the mean of the members' pictures. None: the network has no such maps.
    """
    network = bundle.network
    if network.picture is None:
        return None
    found: dict[int, Array] = {}
    for rows, batch in _batches(held, 1):
        shape = sum(batch[name].shape[1] for name in network.names), batch[network.names[0]].shape[2]
        with _last_maps(network) as maps:
            picture, share = network.see(batch)
            logits = network.body(picture.requires_grad_(), share)
            if not maps:
                return None
            logits[0, labels[rows[0]]].backward()
        grid = shape[0], max(shape[1], network.n_frames or 0)
        found[int(rows[0])] = torch.stack([_weighted(m, grid) for m in maps.values()]).mean(0)[:, : shape[1]].numpy()
    network.zero_grad()
    return [found[k] for k in range(len(held))]


def needed_bands(bundle: Bundle, held: Features, truth: NDArray[np.bool_]) -> list[Strip]:
    """Strip by strip over the bands of each feature, low to high. Below 0 they mislead.

    A strip is silenced by the mean of the training data, which says nothing.
    """
    values = {name: torch.from_numpy(value) for name, value in held.values.items()}

    def of_truth(heard: dict[str, Tensor]) -> float:
        return float(bundle.predict(heard, frames=held.frames)[truth].mean())

    whole, found = of_truth(values), []
    for name in (name for name in bundle.network.names if name in FRAME_FEATURES):
        n_bands = values[name].shape[1]
        mean = getattr(bundle.network, f"mean_{name}").cpu().expand(n_bands, 1)
        edges = np.unique(np.linspace(0, n_bands, STRIPS + 1).round().astype(int)).tolist()
        for first, stop in zip(edges[:-1], edges[1:], strict=True):
            without = values[name].clone()
            without[:, first:stop] = mean[first:stop].to(without.dtype)
            found.append(Strip(name, first, stop, whole - of_truth({**values, name: without})))
    return found


def arranged(bundle: Bundle, held: Features, seed: int = 0) -> dict[str, Array]:
    """Windows as points [N, 2] of maps, by name: near means that the network hears them alike. Empty: too few.

    t-SNE keeps neighbours, UMAP (where umap-learn is installed) also something of what lies between groups of them.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    n = len(held)
    if n < FEWEST_POINTS:
        return {}
    embeddings = np.zeros((n, bundle.network.body.width), np.float32)
    with torch.inference_mode():
        for rows, batch in _batches(held, 32):
            embeddings[rows] = bundle.network.embed(batch).float().numpy()
    scaled = (embeddings - embeddings.mean(0)) / (embeddings.std(0) + 1e-6)
    fewer = PCA(min(50, *scaled.shape), random_state=seed).fit_transform(scaled)
    tsne = TSNE(perplexity=min(PERPLEXITY, (n - 1) / 3), init="pca", random_state=seed)
    with threadpool_limits(1):  # its 1,000 short steps wait for each other's threads: 3 s for 40 on a busy machine
        return {"t-SNE": tsne.fit_transform(fewer)} | _umap(fewer, seed)


def _umap(points: Array, seed: int) -> dict[str, Array]:
    if importlib.util.find_spec("umap") is None:
        return {}
    n_threads = torch.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import says that TensorFlow is not there
        from umap import UMAP

        # One thread, as it would take itself beside a seed, with a warning.
        fitted = UMAP(n_neighbors=min(NEIGHBOURS, len(points) - 1), random_state=seed, n_jobs=1).fit_transform(points)
    torch.set_num_threads(n_threads)  # numba, starting, sets those of OpenMP to all cores
    return {"UMAP": fitted}


def _batches(held: Features, size: int) -> Iterator[tuple[NDArray[np.int64], dict[str, Tensor]]]:
    for rows in alike(len(held), held.frames, size):
        end = None if held.frames is None else int(held.frames[rows[0]])
        yield rows, {name: torch.from_numpy(value[rows][..., :end]).float() for name, value in held.values.items()}


@contextmanager
def _last_maps(network: Network) -> Iterator[dict[str, Tensor]]:
    """By member of an ensemble, what the last convolution gives meanwhile."""
    found: dict[str, Tensor] = {}

    def note(member: str, maps: Tensor) -> None:
        if maps[0, 0].numel() >= FEWEST_CELLS:
            maps.retain_grad()
            found[member] = maps

    hooks = []
    for name, module in network.body.named_modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            member = ".".join(name.split(".")[:2]) if name.startswith("members.") else ""
            hooks.append(module.register_forward_hook(lambda _, __, maps, member=member: note(member, maps)))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _weighted(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Of one window: [1, C, f, l] or [1, C, l] to [F, L], its largest value 1."""
    assert maps.grad is not None
    values, slopes = (x if x.ndim == 4 else x[:, :, None] for x in (maps.detach().float(), maps.grad.float()))
    speaking = (slopes.mean((2, 3), keepdim=True) * values).sum(1, keepdim=True).relu()
    seen = F.interpolate(speaking, grid, mode="bilinear")[0, 0]
    return seen / seen.max().clamp_min(1e-12)
