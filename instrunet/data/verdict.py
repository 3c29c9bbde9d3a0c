"""What an audit found, as plain data that fits into a bundle and a report."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["leak", "warning"]


@dataclass(frozen=True)
class Finding:
    """`n` cases of one kind; `clips` names the clips of the first of them."""

    kind: str
    severity: Severity
    n: int
    clips: tuple[tuple[str, ...], ...]
    detail: str


@dataclass(frozen=True)
class Audit:
    """What was found, leaks first; `unchecked` clips gave no sound to compare.

    `together` holds the groups that sound alike, whichever split they are in: one of each set belongs where all are.
    """

    findings: tuple[Finding, ...]
    n_clips: int
    unchecked: int
    together: tuple[tuple[str, ...], ...] = ()

    @property
    def verdict(self) -> Literal["clean", "leaky"]:
        return "leaky" if any(f.severity == "leak" for f in self.findings) else "clean"

    @property
    def reasons(self) -> list[str]:
        """A short sentence for each leak."""
        return [f.detail for f in self.findings if f.severity == "leak"]

    @property
    def warnings(self) -> list[str]:
        return [f.detail for f in self.findings if f.severity == "warning"]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the same for the same rows in any order."""
        findings = [asdict(f) | {"clips": [list(case) for case in f.clips]} for f in self.findings]
        return {
            "verdict": self.verdict,
            "reasons": self.reasons,
            "warnings": self.warnings,
            "findings": findings,
            "n_clips": self.n_clips,
            "unchecked": self.unchecked,
        }
