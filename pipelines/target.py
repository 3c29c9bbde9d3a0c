"""Where a job runs and with how much: what configs/cluster/*.yaml may say."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from instrunet.config import Spec

NAME_LIMIT = 47  # the operator refuses more: it appends up to 16 characters for pods and services (63 in DNS)
PREFIX_LIMIT = NAME_LIMIT - len("-featurize-01234567")
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
# By hand, as only submit.py may import kubernetes, whose own parser this is: the notation, and what its endings mean.
QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|[KMGTPE]i|[MGTPE])?")
SCALE = {None: 1.0, "m": 1e-3, "k": 1e3} | {
    unit: base**power for power, si in enumerate("KMGTPE", start=1) for unit, base in ((si, 1e3), (f"{si}i", 1024.0))
}
CREDENTIALS = re.compile(r"://[^/\s@]*:[^/\s@]+@")


def _quantity(value: Any) -> str:
    if not QUANTITY.fullmatch(str(value)):
        raise ValueError(f"expected an amount like 500m, 2 or 8Gi, got {value!r}")
    return str(value)


def size(quantity: str) -> float:
    """In cores, bytes or pieces."""
    found = QUANTITY.fullmatch(quantity)
    assert found
    return float(found[1]) * SCALE[found[2]]


class Amount(Spec):
    """Processor and memory of one pod, in Kubernetes' own notation."""

    cpu: Annotated[str, BeforeValidator(_quantity)]
    memory: Annotated[str, BeforeValidator(_quantity)]


class Toleration(Spec):
    """A taint that these pods put up with."""

    key: str
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Pod(Spec):
    """What one pod asks for, where it is stopped, and which nodes may run it."""

    requests: Amount
    limits: Amount
    gpus: int = Field(0, ge=0)
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()

    @model_validator(mode="after")
    def _requests_fit_limits(self) -> Self:
        for field in ("cpu", "memory"):
            asked, most = getattr(self.requests, field), getattr(self.limits, field)
            if size(asked) > size(most):
                raise ValueError(
                    f"expected requests.{field} <= limits.{field}, got {asked} and {most}; raise the limit"
                )
        return self


class Workers(Pod):
    """The pods that compute. Ray's autoscaler runs when there is room between `min` and `max`."""

    min: int = Field(1, ge=0)
    max: int = Field(1, ge=1)
    replicas: int = Field(1, ge=0)

    @model_validator(mode="after")
    def _replicas_between(self) -> Self:
        if not self.min <= self.replicas <= self.max:
            raise ValueError(
                f"expected min <= replicas <= max, got min={self.min}, replicas={self.replicas}, max={self.max}"
            )
        return self


class SecretKey(Spec):
    """Where a value lies; never the value."""

    secret: str
    key: str


class ClusterTarget(Spec):
    """Where a job runs and with how much: all that configs/cluster/*.yaml may say."""

    namespace: str
    image: str
    ray_version: str
    storage: str
    head: Pod
    workers: Workers
    tracking_uri: str | None = None
    prefix: str = "instrunet"
    service_account: str = "instrunet"
    scheduler_account: str = "instrunet-scheduler"
    ttl_s: int = Field(3600, ge=0)
    backoff_limit: int = Field(1, ge=0)
    deadline_s: int = Field(86_400, ge=1)
    start_deadline_s: int = Field(1800, ge=1)
    env: dict[str, SecretKey] = {}

    @field_validator("prefix")
    @classmethod
    def _leaves_room(cls, prefix: str) -> str:
        if not DNS_LABEL.fullmatch(prefix) or len(prefix) > PREFIX_LIMIT:
            raise ValueError(
                f"expected at most {PREFIX_LIMIT} of a-z, 0-9 and -, from a letter on (a RayJob's name ends at "
                f"{NAME_LIMIT}), got {prefix!r} of {len(prefix)}; shorten it"
            )
        return prefix

    @field_validator("storage", "tracking_uri")
    @classmethod
    def _without_credentials(cls, url: str | None) -> str | None:
        if url and CREDENTIALS.search(url):
            raise ValueError("expected a URL without credentials, got one that holds some; give them under env")
        return url

    @field_validator("storage")
    @classmethod
    def _reached_by_all_pods(cls, storage: str) -> str:
        if not re.match(r"(s3|gs|hdfs|abfss?)://[^/]", storage):
            raise ValueError(
                f"expected a URL like s3://bucket/runs, got {storage!r}; a pod's own disk goes when the pod goes"
            )
        return storage

    @model_validator(mode="before")
    @classmethod
    def _env_by_reference(cls, tree: Any) -> Any:
        # Ahead of all other checks: their messages show what came, and here that may be the secret itself.
        env = tree.get("env", {}) if isinstance(tree, dict) else {}
        for name, source in env.items() if isinstance(env, dict) else [("NAME", env)]:
            if not isinstance(source, dict) or set(source) != {"secret", "key"}:
                raise ValueError(
                    f"env: expected {name}: {{secret: NAME, key: KEY}}, got something else; write no values here"
                )
        return tree
