"""Sets that share a member become one."""

from collections.abc import Iterable, Sequence


def unions(sets: Iterable[Sequence[str]]) -> list[list[str]]:
    """The joined sets of two members or more, each sorted, in order: the same for the same input in any order."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    for names in sets:
        for name in names:
            parent[root(name)] = root(names[0])
    members: dict[str, list[str]] = {}
    for name in sorted(parent):
        members.setdefault(root(name), []).append(name)
    return sorted(found for found in members.values() if len(found) > 1)
