"""The picture that a page draws of a sound: bytes, the lowest band first, no wider than a page."""

import base64

import numpy as np
import pytest
from archives import RATE, sound, tiny_bundle

from instrunet.report.seen import WIDEST, seen, ticks


@pytest.mark.parametrize("seconds", [0.3, 4.0, 120.0])
def test_a_higher_tone_lights_a_higher_band(seconds: float) -> None:
    bundle, t = tiny_bundle(), np.arange(round(seconds * RATE)) / RATE
    brightest = []
    for hz in (300, 1000):
        found = seen(bundle, (0.5 * np.sin(2 * np.pi * hz * t)).astype(np.float32))
        assert found and found.feature == "logmel" and found.bands == 32
        assert found.frames == min(WIDEST, 1 + len(t) // 256)
        pixels = np.frombuffer(base64.b64decode(found.pixels), np.uint8).reshape(found.bands, found.frames)
        assert pixels.max() == 255 and pixels.min() == 0
        brightest.append(int(pixels.mean(1).argmax()))
        (at,) = (band for tick, band in found.ticks if tick == hz)
        assert abs(brightest[-1] + 0.5 - at) <= 1
    assert brightest[0] < brightest[1]


def test_no_sound_is_no_picture() -> None:
    assert seen(tiny_bundle(), sound(0.0)) is None
    assert ticks(tiny_bundle())[0] == [300, 1000, 3000]
