"""Pieces that several networks share.

Shapes: B clips, C maps, H bands, W frames.
"""

import torch
from torch import Tensor


def sounding(share: Tensor, n_frames: int) -> Tensor:
    """[B] shares of a window to [B, W], true where a frame holds sound; the first one always does."""
    held = (share * n_frames - 1e-3).ceil().clamp_min(1)  # 37 / 130 times 130 is 37.000004 in single precision
    return torch.arange(n_frames, device=share.device) < held[:, None]


def mean_over_picture(maps: Tensor, share: Tensor | None) -> Tensor:
    """[B, C, H, W] to [B, C]; frames without sound do not count."""
    if share is None:
        return maps.mean((2, 3))
    mask = sounding(share, maps.shape[3])[:, None, None, :].to(maps.dtype)
    return (maps * mask).sum((2, 3)) / (mask.sum((2, 3)) * maps.shape[2])
