"""Where the work runs: Ray, MLflow and Kubernetes are known here and nowhere else."""

import sys
from types import TracebackType


def _calm(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C while libraries are still being imported is no crash; the shell sees 130."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("interrupted; nothing was begun\n")
    else:
        sys.__excepthook__(kind, error, trace)


if sys.excepthook is sys.__excepthook__:
    sys.excepthook = _calm
