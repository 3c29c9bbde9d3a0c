"""Renders the overlays of k8s/ as `kubectl kustomize` does, as far as they use it: resources, namespace, images and
JSON patches. Where kubectl is at hand, a test holds the two to the same objects."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

Object = dict[str, Any]
KNOWN = {"apiVersion", "kind", "resources", "namespace", "images", "patches"}
OF_NO_NAMESPACE = {"Namespace"}


def rendered(folder: Path) -> list[Object]:
    plan = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    assert plan.keys() <= KNOWN, f"{folder}: this loader does not know {sorted(plan.keys() - KNOWN)}"
    objects = [item for name in plan["resources"] for item in _read(folder / name)]
    for patch in plan.get("patches", ()):
        _patch(objects, patch, folder)
    for item in objects:
        for container in containers(item):
            _set_image(container, plan.get("images", ()))
        if plan.get("namespace") and item["kind"] not in OF_NO_NAMESPACE:
            item["metadata"]["namespace"] = plan["namespace"]
            for subject in item.get("subjects", ()):
                subject["namespace"] = plan["namespace"]
    return objects


def _read(path: Path) -> list[Object]:
    if path.is_dir():
        return rendered(path)
    # Anchors within a document are one object in Python: taken apart, or a patch of one would change the others.
    return [copy.deepcopy(_apart(item)) for item in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def _apart(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _apart(item) for key, item in value.items()}
    return [_apart(item) for item in value] if isinstance(value, list) else value


def _patch(objects: list[Object], patch: Object, folder: Path) -> None:
    wanted = (patch["target"]["kind"], patch["target"]["name"])
    found = [n for n, item in enumerate(objects) if (item["kind"], item["metadata"]["name"]) == wanted]
    assert found, f"{folder}: a patch for {wanted}, which is not there"
    for number in found:
        objects[number] = jsonpatch.apply_patch(objects[number], yaml.safe_load(patch["patch"]))


def _set_image(container: Object, images: list[Object]) -> None:
    for image in images:
        if container["image"].split(":")[0] == image["name"]:
            container["image"] = f"{image.get('newName', image['name'])}:{image['newTag']}"
            return


def templates(item: Object) -> Iterator[tuple[str, Object]]:
    """The pod templates within an object, each with where it stands."""
    spec = item.get("spec", {})
    if item["kind"] in ("Deployment", "StatefulSet"):
        yield item["kind"], spec["template"]
    elif item["kind"] == "CronJob":
        yield "CronJob", spec["jobTemplate"]["spec"]["template"]
    elif item["kind"] == "RayCluster":
        yield "head", spec["headGroupSpec"]["template"]
        yield from ((group["groupName"], group["template"]) for group in spec["workerGroupSpecs"])
    elif item["kind"] == "RayJob":
        yield "submitter", spec["submitterPodTemplate"]
        yield from templates({"kind": "RayCluster", "spec": spec["rayClusterSpec"]})


def containers(item: Object) -> list[Object]:
    pods = [template["spec"] for _, template in templates(item)]
    return [container for pod in pods for key in ("initContainers", "containers") for container in pod.get(key, ())]
