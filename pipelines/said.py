"""The JSON that a server takes and gives, as its OpenAPI describes it."""

from typing import Literal

from pydantic import BaseModel, Field


class Limits(BaseModel):
    mb: float = Field(description="megabytes of a body")
    seconds: float = Field(description="of sound")
    at_once: int = Field(description="sounds that are heard at a time")


class Model(BaseModel):
    name: str
    fingerprint: str
    network: str
    kind: Literal["single", "multi"]
    labels: list[str]
    thresholds: list[float] | None = Field(description="a label's own, where a sound may have several")
    abstain_below: float = Field(description="below this score there is no answer")
    window_s: float
    sample_rate: int
    runs_on: str
    leaky: str = Field(description="why its scores flatter it; empty where nothing was found")


class Models(BaseModel):
    models: list[Model]
    limits: Limits


class Picture(BaseModel):
    feature: str
    bands: int
    frames: int
    ticks: list[tuple[int, float]] = Field(description="hertz, and the band where they lie")
    pixels: str = Field(description="bytes in base64, band by band from the lowest")


class Answer(BaseModel):
    """As `jobs/predict.py --json` says it, and which model said it."""

    model: str
    fingerprint: str = Field(description="of the model; it changes where an alias was moved")
    status: Literal["tagged", "damaged", "silent", "too_short"]
    answer: str = Field(description="the decision in words")
    labels: list[str]
    scores: dict[str, float] = Field(description="what is decided on: the mean over the windows, calibrated")
    window_start_s: list[float]
    window_scores: list[list[float]]
    window_s: float
    duration_s: float
    start_s: float
    flags: list[str]
    error: str = Field(description="what is wrong with a sound that was heard all the same")
    drift: float | None = Field(description="how far outside the training data, in interquartile ranges; 0 inside")
    leaky: str
    spectrogram: Picture | None


class Refusal(BaseModel):
    status: str = Field(description="one word")
    error: str = Field(description="what was expected, what came")
