"""kube-apiserver from Debian's source package, with Debian's etcd: python tests/soak/build_apiserver.py ROOT (as root)

ROOT/bin holds both after it (about 7 minutes and 2 GB; nothing is done where they are). Debian 12 has 1.20, the last
that it built whole. Two things are done to it: its OpenAPI file, which is no part of the source, is generated, and
reflect2, which breaks under the Go of Debian 12, is that of Debian 12.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

GO = Path("/usr/lib/go-1.19/bin")
PACKAGES = ("golang-1.19-go", "golang-github-modern-go-reflect2-dev", "etcd-server", "dpkg-dev")
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
GENERATED = "pkg/generated/openapi"
TAGGED = re.compile(r"^// \+k8s:openapi-gen=", re.MULTILINE)
VERSION = {"gitVersion": "v1.20.2", "gitMajor": "1", "gitMinor": "20"}


def main() -> int:
    root = Path(sys.argv[1]).absolute() if len(sys.argv) == 2 else None  # noqa: PLR2004, itself and ROOT
    if root is None:
        sys.exit(__doc__)
    programs = root / "bin"
    if not all((programs / name).exists() for name in ("kube-apiserver", "etcd")):
        if os.geteuid() != 0 or not SOURCES.exists():
            sys.exit(f"expected root on Debian 12 with {SOURCES}, to install {', '.join(PACKAGES)}")
        programs.mkdir(parents=True, exist_ok=True)
        build(fetched(root), root)
        shutil.copy("/usr/bin/etcd", programs / "etcd")
    print(programs)
    return 0


def fetched(root: Path) -> Path:
    """Unpacked where Go looks for it."""
    tree = root / "go/src/k8s.io/kubernetes"
    if tree.exists():
        return tree
    own = root / "source.sources"
    own.write_text(SOURCES.read_text(encoding="utf-8").replace("Types: deb\n", "Types: deb-src\n"), encoding="utf-8")
    only = ("-o", f"Dir::Etc::sourcelist={own}", "-o", "Dir::Etc::sourceparts=-", "-o", "APT::Get::List-Cleanup=0")
    do("apt-get", "update")
    do("apt-get", "update", *only)
    do("apt-get", "install", "-y", "--no-install-recommends", *PACKAGES)
    do("apt-get", "source", *only, "--download-only", "kubernetes", folder=root)
    (description,) = root.glob("kubernetes_*.dsc")
    part = tree.with_name("part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    do("dpkg-source", "--no-check", "-x", str(description), str(part))
    shutil.rmtree(part / "vendor/github.com/modern-go/reflect2")
    shutil.copytree(
        "/usr/share/gocode/src/github.com/modern-go/reflect2", part / "vendor/github.com/modern-go/reflect2"
    )
    part.rename(tree)
    return tree


def build(tree: Path, root: Path) -> None:
    generator = root / "openapi-gen"
    go(tree, root, "-o", str(generator), "./vendor/k8s.io/kube-openapi/cmd/openapi-gen")
    given = [
        *("--input-dirs", ",".join(described(tree)), "--output-package", f"k8s.io/kubernetes/{GENERATED}"),
        *("--output-file-base", "zz_generated.openapi", "--output-base", str(root / "go/src")),
        *("--go-header-file", "hack/boilerplate/boilerplate.generatego.txt", "-r", str(root / "violations")),
    ]
    do(str(generator), *given, folder=tree, **environment(root))
    stamp = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in VERSION.items())
    go(tree, root, "-o", str(root / "bin/kube-apiserver"), "-ldflags", f"-s -w {stamp}", "./cmd/kube-apiserver")


def described(tree: Path) -> list[str]:
    """The packages whose types say that they are in the OpenAPI file."""
    found = set()
    for top, prefix in (("staging/src", "k8s.io/kubernetes/vendor"), ("pkg", "k8s.io/kubernetes/pkg")):
        for path in (tree / top).rglob("*.go"):
            if TAGGED.search(path.read_text(encoding="utf-8", errors="replace")):
                found.add(f"{prefix}/{path.parent.relative_to(tree / top)}")
    return sorted(one for one in found if not re.search(r"code-generator|testdata|/test|sample", one))


def go(tree: Path, root: Path, *words: str) -> None:
    do(str(GO / "go"), "build", *words, folder=tree, **environment(root))


def environment(root: Path) -> dict[str, str]:
    ours = {"GO111MODULE": "off", "GOPATH": str(root / "go"), "GOCACHE": str(root / "cache"), "CGO_ENABLED": "0"}
    return ours | {"PATH": f"{GO}:{os.environ['PATH']}"}


def do(*words: str, folder: Path | None = None, **environment: str) -> None:
    print("$", *(word if len(word) < 200 else word[:200] + "..." for word in words), flush=True)  # noqa: PLR2004
    done = subprocess.run(words, cwd=folder, env=os.environ | environment, check=False)
    if done.returncode:
        sys.exit(f"{words[0]} ended with {done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
