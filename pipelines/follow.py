"""Stays with a RayJob until it ends: its states, the cluster's complaints, its log, and how it came out."""

import re
import time
from datetime import UTC, datetime

from instrunet.errors import JobError
from pipelines.console import note, result
from pipelines.submit import AwayError, Cluster, Object, RefusedError

OVER = ("Complete", "Failed", "ValidationFailed")  # a failure that is tried again says Retrying
SUBMITTER = "ray-job-submitter"
NOT_TAKEN_UP_S = 60  # an operator that runs sets the first state within seconds
SHOWN_WARNINGS = 20
AWAY_S, AWAY_TRIES = 2.0, 60  # an API server may be away, as for an upgrade, while a job is followed
REFUSED_TRIES = 15  # and for seconds after its start it knows no rights
EXIT_CODE = re.compile(r"exit code (\d+)")  # as Ray puts it into the job's message


def until_over(cluster: Cluster, name: str, *, logs: bool) -> None:
    """Returns when the job went well; raises with the job's exit code when it did not."""
    try:
        _raise_unless_well(_stay(cluster, name, logs=logs), cluster)
    except KeyboardInterrupt:
        where = f"{cluster.namespace}/{name}"
        note(f"{where} goes on in the cluster: `jobs/submit.py logs {name} --follow` shows it, `stop {name}` ends it")
        raise


def _stay(cluster: Cluster, name: str, *, logs: bool) -> Object:
    log, told, tries, seen = Log(cluster, name), Told(name), 0, False
    while True:
        try:
            for rayjob in cluster.changes("RayJob", name):
                seen, over = True, is_over(rayjob)
                told.state(rayjob)
                if not over or told.troubled(rayjob):
                    told.warnings(_warnings(cluster, name))
                if logs:
                    log.pour(follow=not over)
                if over:
                    return rayjob
                tries = 0  # here, not above: a log that may not be read is refused each time round
        except (AwayError, RefusedError) as error:
            tries += 1
            if tries > (AWAY_TRIES if isinstance(error, AwayError) else REFUSED_TRIES if seen else 0):
                raise
            time.sleep(AWAY_S)


def _warnings(cluster: Cluster, name: str) -> list[str]:
    try:
        return cluster.warnings(name)
    except AwayError:
        raise
    except JobError:
        return []  # no right to see events is no reason to leave the job


def is_over(rayjob: Object) -> bool:
    return rayjob.get("status", {}).get("jobDeploymentStatus") in OVER


def went_well(rayjob: Object) -> bool:
    return is_over(rayjob) and rayjob["status"].get("jobStatus") == "SUCCEEDED"


def described(rayjob: Object) -> str:
    status = rayjob.get("status", {})
    words = (status.get("jobDeploymentStatus") or "New", status.get("jobStatus"), status.get("reason"))
    retries = f"try {status['failed'] + 1}" if status.get("failed") and not is_over(rayjob) else None
    return ", ".join(word for word in (*words, retries) if word)


def age_s(rayjob: Object) -> float:
    made = datetime.fromisoformat(rayjob["metadata"]["creationTimestamp"])
    return (datetime.now(UTC) - made).total_seconds()


def _raise_unless_well(rayjob: Object, cluster: Cluster) -> None:
    if went_well(rayjob):
        return
    status, name = rayjob["status"], rayjob["metadata"]["name"]
    said = " ".join((status.get("message") or "no message").partition(", last available logs")[0].split())[:300]
    error = JobError(
        f"expected {cluster.namespace}/{name} to succeed, got {described(rayjob)}: {said}; "
        f"see `jobs/submit.py logs {name}`"
    )
    code = EXIT_CODE.search(said)
    error.exit_code = int(code[1]) if code else JobError.exit_code
    raise error


class Told:
    """What was said already, so that each thing is said once."""

    def __init__(self, name: str) -> None:
        self._name, self._state, self._warnings = name, "", set[str]()

    def state(self, rayjob: Object) -> None:
        state = described(rayjob)
        if state != self._state:
            note(f"{self._name}: {state}")
            self._state = state
        if state == "New" and age_s(rayjob) > NOT_TAKEN_UP_S:
            self.warnings([f"{self._name}: no operator has taken it up for {NOT_TAKEN_UP_S} s; is KubeRay's running?"])

    def troubled(self, rayjob: Object) -> bool:
        return rayjob["status"].get("reason") not in (None, "", "AppFailed")

    def warnings(self, texts: list[str]) -> None:
        for text in texts:
            if text not in self._warnings and len(self._warnings) < SHOWN_WARNINGS and ": Unhealthy: " not in text:
                note(f"warning: {text}")  # Unhealthy: probes of pods that are still starting
                self._warnings.add(text)


class Log:
    """The job's output as the submitter's pods have it, each line once however often the connection breaks."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster, self._selector = cluster, f"job-name={name}"
        self._last: dict[str, str] = {}  # pod: time of its last line shown
        self._read: dict[str, float] = {}

    def pour(self, *, follow: bool) -> bool:
        """All that is new on stdout; was there any pod? A retry is a pod of its own."""
        pods = [pod for pod in self._cluster.pods(self._selector) if pod["status"].get("phase") != "Pending"]
        for pod in pods:
            self._pour(pod["metadata"]["name"], follow=follow and pod is pods[-1])
        return bool(pods)

    def _pour(self, pod: str, *, follow: bool) -> None:
        since_s = int(time.monotonic() - self._read[pod]) + 2 if pod in self._read else None
        last = self._last.get(pod, "")
        try:
            for line in self._cluster.log(pod, SUBMITTER, since_s, follow=follow):
                self._read[pod] = time.monotonic()
                stamp, _, text = line.partition(" ")
                if stamp > last:
                    self._last[pod] = stamp
                    result(text)
        except AwayError:
            return  # whoever follows asks again
