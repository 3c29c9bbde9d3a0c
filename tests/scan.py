"""Secrets in the checkout, and known vulnerabilities of the pinned packages (asked of OSV): part of `make lint`.

python tests/scan.py [--strict] [--service URL]

A secret ends it with 1. A vulnerability is told in a line; with --strict (`make audit`) it ends it with 1, as does a
list that cannot be reached: a clean clone must not fail its tests for what was found about a package since.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import requests

ROOT = Path(__file__).parent.parent
OSV = "https://api.osv.dev"
TIMEOUT_S = 20
ACCEPTED: dict[str, str] = {}  # id of a vulnerability: why it does not concern us
KEYS = (
    re.compile(  # by the forms that keys have; a thousand rules would find the canaries of our tests, and little else
        rb"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|gh[pousr]_\w{36}|xox[baprs]-\d{8,}|hf_\w{34}"
    )
)
PIN = re.compile(r"^([\w.-]+)==([\w.+!-]+)", re.MULTILINE)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--service", default=OSV)
    args = parser.parse_args(arguments)
    paths = tracked()
    leaked = secrets(paths)
    for name in leaked:
        print(f"error: expected no key in the checkout, {name} holds one; take it out of the history, and revoke it")
    pins = PIN.findall((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    try:
        found = list(vulnerabilities(pins, args.service))
    except (requests.RequestException, ValueError, KeyError) as error:
        found = [f"{len(pins)} packages not looked up: {args.service} gave {type(error).__name__}; needs the network"]
    if not paths:
        found.append(f"no keys looked for: {ROOT} is no git checkout, so there is no list of its files")
    for line in found:
        print(f"{'error' if args.strict else 'warning'}: {line}")
    return 1 if leaked or (args.strict and found) else 0


def tracked() -> list[Path]:
    """Nothing outside a git checkout, as the image's."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def secrets(paths: list[Path]) -> list[str]:
    return [os.path.relpath(path, ROOT) for path in paths if KEYS.search(path.read_bytes())]


def vulnerabilities(pins: list[tuple[str, str]], service: str) -> Iterator[str]:
    """A line each; one request for all packages, one for each thing found."""
    asked = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in pins]
    answer = requests.post(f"{service}/v1/querybatch", json={"queries": asked}, timeout=TIMEOUT_S)
    answer.raise_for_status()
    for (name, version), result in zip(pins, answer.json()["results"], strict=True):
        for one in result.get("vulns", ()):
            if one["id"] not in ACCEPTED:
                detail = requests.get(f"{service}/v1/vulns/{one['id']}", timeout=TIMEOUT_S)
                detail.raise_for_status()
                yield f"{name} {version}: {one['id']}: {detail.json().get('summary', 'no summary')}"


if __name__ == "__main__":
    sys.exit(main())
