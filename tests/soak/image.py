"""k8s/Dockerfile without a container engine: its steps in a clean Debian, by debootstrap and chroot, as root.

python tests/soak/image.py ROOT [--device gpu|cpu] [--ffmpeg yes|no]

ROOT is an empty folder with 15 GB to spare (or what an earlier run left: the base system is kept). Debian's Python
stands for the base image's; stage `app` is built, then the health check and the command run as the image's user.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent.parent
DEBIAN = "bookworm"
PACKAGES = "python3,python3-pip,python3-setuptools,python3-wheel,ca-certificates"
FROM_HOST = ("etc/pip.conf", "etc/ssl/certs/ca-certificates.crt", "etc/resolv.conf")
STAGE = "app"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--device", default="gpu", help="gpu (default): torch of PyPI; cpu needs PyTorch's own index")
    parser.add_argument("--ffmpeg", default="no")
    args = parser.parse_args()
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        sys.exit("expected root and debootstrap (apt-get install debootstrap)")
    base(args.root)
    image = Image(args.root, {"DEVICE": args.device, "FFMPEG": args.ffmpeg})
    for line in stages((HERE / "k8s/Dockerfile").read_text(encoding="utf-8"))[STAGE]:
        image.do(line)
    for command in (image.health, image.command):
        image.run(shlex.join(command), user=image.user)
    print(f"the steps of k8s/Dockerfile work: {args.root} ({size(args.root) / 1e9:.1f} GB)")
    return 0


def base(root: Path) -> None:
    if not (root / "usr/bin/python3").exists():
        subprocess.run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", DEBIAN, root], check=True)
    for name in ("python", "pip"):
        link = root / "usr/local/bin" / name
        link.unlink(missing_ok=True)
        link.symlink_to(f"/usr/bin/{name}3")
    for name in FROM_HOST:
        if Path("/", name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path("/", name), root / name)


def stages(text: str) -> dict[str, list[str]]:
    """The lines of each stage, those of the stage that it begins with before them."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    found: dict[str, list[str]] = {}
    name = ""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if begins := re.fullmatch(r"FROM (\S+) AS (\S+)", line.strip()):
            name = begins[2]
            found[name] = list(found.get(begins[1], []))
        elif line.strip():
            found[name].append(re.sub(r"\s+", " ", line.strip()))
    return found


class Image:
    def __init__(self, root: Path, arguments: dict[str, str]) -> None:
        self.root, self.arguments = root, arguments
        self.folder, self.user = "/", ""
        self.health: list[str] = []
        self.command: list[str] = []
        # Debian keeps its Python to itself otherwise; the base image's is free
        self.variables = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "PIP_BREAK_SYSTEM_PACKAGES": "1"}

    def do(self, line: str) -> None:
        print(f"> {line}", flush=True)
        what, _, rest = line.partition(" ")
        if what == "ENV":
            self.variables |= dict(word.split("=", 1) for word in shlex.split(rest))
        elif what == "ARG":
            name, _, value = rest.partition("=")
            self.variables[name] = self.arguments.get(name, value)
        elif what == "WORKDIR":
            self.folder = rest
            self._inside(rest).mkdir(parents=True, exist_ok=True)
        elif what == "COPY":
            *given, to = rest.split()
            for name in given:
                self._copy(HERE / name, self._inside(str(Path(self.folder, to))))
        elif what == "RUN":
            self.run(rest)
        elif what == "USER":
            self.user = rest
        elif what == "HEALTHCHECK":
            self.health = list(_listed(rest[rest.index("CMD ") + 4 :]))
        elif what == "CMD":
            self.command = list(_listed(rest))
        else:
            sys.exit(f"expected a step that is known here, got {line}")

    def run(self, command: str, user: str = "") -> None:
        shell = ["chroot", *([f"--userspec={user}"] if user else []), self.root, "/bin/sh", "-ec"]
        done = subprocess.run([*shell, f"cd {self.folder} && {command}"], env=self.variables, check=False)
        if done.returncode:
            sys.exit(f"exit code {done.returncode} of: {command}")

    def _inside(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def _copy(self, given: Path, to: Path) -> None:
        if given.is_dir():
            shutil.copytree(given, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(given, to)


def _listed(text: str) -> Iterator[str]:
    yield from re.findall(r'"([^"]*)"', text)


def size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_symlink() and path.is_file())


if __name__ == "__main__":
    sys.exit(main())
