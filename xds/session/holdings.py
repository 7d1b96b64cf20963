"""Which versions a client may hold, and what those use."""

from __future__ import annotations

from collections.abc import KeysView

Uses = frozenset[str] | None
"""Names that a version uses; None where nobody knows, which counts as using everything."""


class Holdings:
    """Every version of every name that the client may be running.

    A version comes in when it is sent and leaves when a later one is acknowledged: until then, and after a
    NACK (which is not atomic), the client may run the old or the new one.
    """

    __slots__ = ("_unknown", "_users", "_versions")

    def __init__(self) -> None:
        self._versions: dict[str, dict[str, Uses]] = {}
        self._users: dict[str, int] = {}
        self._unknown = 0

    def __contains__(self, name: object) -> bool:
        return name in self._versions

    def has(self, name: str, version: str) -> bool:
        """Whether the client may run this very version."""
        return version in self._versions.get(name, ())

    def add(self, name: str, version: str, uses: Uses) -> None:
        """The client is being sent a version, or says that it has it."""
        versions = self._versions.setdefault(name, {})
        if version not in versions:
            versions[version] = uses
            self._count(uses, 1)
        elif versions[version] is None and uses is not None:
            versions[version] = uses
            self._count(None, -1)
            self._count(uses, 1)

    @property
    def guesses(self) -> bool:
        """Whether there is a version of which nobody knows what it uses."""
        return self._unknown > 0

    def settle(self, name: str, version: str) -> None:
        """The client runs this version, so none before it."""
        versions = self._versions.get(name, {})
        for old in [other for other in versions if other != version]:
            self._count(versions.pop(old), -1)

    def drop(self, name: str) -> None:
        """The client has no version of the name any more."""
        for uses in self._versions.pop(name, {}).values():
            self._count(uses, -1)

    def names(self) -> KeysView[str]:
        """The names that the client may have."""
        return self._versions.keys()

    def used(self, target: str) -> bool:
        """Whether any version that the client may run uses `target`, or may use it for all we know."""
        return self._unknown > 0 or target in self._users

    def users(self, target: str) -> list[str]:
        """The names of which a version uses `target`; walks all, so it is for debug output."""
        return [name for name, versions in self._versions.items() if _uses(versions, target)]

    def _count(self, uses: Uses, by: int) -> None:
        if uses is None:
            self._unknown += by
            return
        for target in uses:
            count = self._users.pop(target, 0) + by
            if count:
                self._users[target] = count


def _uses(versions: dict[str, Uses], target: str) -> bool:
    return any(uses is None or target in uses for uses in versions.values())
