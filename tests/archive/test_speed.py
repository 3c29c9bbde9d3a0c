"""What a tagging says of its own speed: stages, the bottleneck, money, and how many actors it takes."""

from typing import Any

import pytest

from instrunet.archive import speed
from instrunet.archive.speed import Prices, Speed
from instrunet.errors import ConfigError


def part(**more: float) -> dict[str, Any]:
    plain = {"files": 10, "bad": 1, "audio_s": 3600.0, "gets": 20, "part": 0, "windows": 0}
    return plain | dict.fromkeys(speed.STAGES, 1.0) | more


def an_hour(made: list[dict[str, Any]], prices: Prices, gpus: int = 0) -> dict[str, Any]:
    """The report of a job on 4 cores that took half an hour."""
    found = Speed(8, 4, 3, gpus)
    for one in made:
        found.add(one)
    found._began -= 1800
    return found.report(prices, {"decode": 1.0})


def test_hours_of_sound_a_core_hour_and_the_stage_that_took_longest() -> None:
    report = an_hour([part(), part(network=7.0)], Prices())
    assert (report["parts"], report["audio_h"]) == ({"made": 2, "of": 8}, 2.0)
    assert report["audio_h_per_hour"] == pytest.approx(4, rel=0.01)
    assert report["audio_h_per_core_hour"] == pytest.approx(1, rel=0.01)
    assert report["bottleneck"] == "network" and report["stages"]["network"] == 0.5
    assert sum(report["stages"].values()) == pytest.approx(1, abs=0.001)
    assert report["cost"] is None and report["probe"] == {"decode": 1.0}
    assert speed.told(report) == "1 hours of sound a core hour on 4 cores; 50% of the time went into network"


def test_money_is_cores_by_time_and_requests() -> None:
    prices = Prices.of("core_hour=0.05,gets_1000=0.4,puts_1000=5")
    report = an_hour([part(), part()], prices)
    assert report["cost"]["job"] == pytest.approx(4 * 0.5 * 0.05 + 40 * 0.4 / 1000 + 2 * 5 / 1000, rel=0.01)
    assert report["cost"]["audio_hours_1000"] == pytest.approx(report["cost"]["job"] * 500, rel=0.01)
    assert "it cost 0.126, 63 for 1,000 hours of sound" in speed.told(report)


def test_a_gpu_hour_counts_beside_the_core_hours_of_its_decoders() -> None:
    report = an_hour([part(), part(windows=64)], Prices.of("core_hour=0.05,gpu_hour=3"), gpus=2)
    assert (report["gpus"], report["batch_windows"]) == (2, 64)
    assert report["audio_h_per_gpu_hour"] == pytest.approx(2, rel=0.01)
    assert report["cost"]["job"] == pytest.approx(0.5 * (4 * 0.05 + 2 * 3), rel=0.01)
    assert speed.told(report).startswith("1 hours of sound a core hour on 4 cores, 2 a GPU hour on 2 GPUs; ")
    without = an_hour([part()], Prices())
    assert (without["gpus"], without["audio_h_per_gpu_hour"], without["batch_windows"]) == (0, None, None)


@pytest.mark.parametrize("text", ["core_hours=1", "core_hour=cheap", "core_hour=-1"])
def test_prices_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--prices: .*core_hour"):
        Prices.of(text)


def test_progress_says_files_hours_rate_and_what_is_bad() -> None:
    found = Speed(8, 4, 3)
    found._began -= 360
    assert str(found.add(part(bad=0))) == "10 files, 1.0 h of sound at 10 h an hour"
    assert str(found.add(part())) == "20 files, 2.0 h of sound at 20 h an hour, 1 bad"


@pytest.mark.parametrize(
    ("fetch", "decode", "network", "wanted"),
    [
        (0, 1, 9, 16),
        (1, 1, 1, 16),  # the store is waited for while it works
        (2, 1, 1, 20),
        (9, 1, 1, 24),  # it waits for the store most of the time; Ray's own tasks need some room
        (0, 0, 0, 16),
    ],
)
def test_so_many_actors_keep_16_cores_busy(fetch: float, decode: float, network: float, wanted: int) -> None:
    assert speed.actors({"fetch": fetch, "decode": decode, "features": 0.0, "network": network}, 16) == wanted


def test_without_a_probe_there_is_an_actor_a_core() -> None:
    assert speed.actors({}, 16) == 16
