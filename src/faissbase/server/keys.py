"""API keys: made, listed, rotated, revoked, and recognised. Their secrets are shown once and never stored.

A key reads ``fb_<id>_<secret>``: the id finds the row, and the secret, 32 random bytes, proves it. Being that
random, it needs no slow hash: SHA-256 of it cannot be tried out.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from faissbase.collection.folder import check_name
from faissbase.errors import AccessError, InvalidInputError, NotFoundError
from faissbase.storage.keys import KeyFile, KeyRow

SCOPES = ("read", "write", "admin")
# What a key has that may do what needs a scope: ``write`` includes ``read``, ``admin`` includes both.
_ENOUGH = {scope: frozenset(SCOPES[i:]) for i, scope in enumerate(SCOPES)}
_PREFIX = "fb"
_ID_BYTES = 6
_SECRET_BYTES = 32
_LONGEST = 256
_NAME_LONGEST = 200
_LONGEST_S = 100 * 365 * 86_400.0
_FILES = ".sqlite"
_MOST_KEYS = 1000
_MOST_INDEXES = 100


class Unauthenticated(AccessError):
    """No key, or none that is good here."""

    kind = "unauthenticated"


@dataclass(frozen=True, slots=True)
class Key:
    """What a key may do. Times are seconds since 1970; ``indexes`` None means all of the tenant's."""

    id: str
    tenant: str
    name: str
    scopes: frozenset[str]
    indexes: frozenset[str] | None
    created_s: float
    expires_s: float | None = None
    revoked_s: float | None = None

    def is_good_at(self, now_s: float) -> bool:
        return self.revoked_s is None and (self.expires_s is None or now_s < self.expires_s)

    def state_at(self, now_s: float) -> str:
        """``active``, ``expired`` or ``revoked``."""
        if self.revoked_s is not None:
            return "revoked"
        return "active" if self.is_good_at(now_s) else "expired"

    def require(self, scope: str) -> None:
        """Refuse what the key has no scope for."""
        if self.scopes.isdisjoint(_ENOUGH[scope]):
            has = ", ".join(sorted(self.scopes))
            raise AccessError(f"this needs a key with the scope {scope!r}; this key has: {has}")

    def may_use(self, names: Iterable[str]) -> bool:
        """Whether an index known by these names is one the key is good for."""
        return self.indexes is None or not self.indexes.isdisjoint(names)


class Keys:
    """The keys of a data folder. Thread-safe; what another process changes holds from the next request on."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._file = KeyFile(folder)
        self._clock = clock
        self._lock = threading.Lock()
        self._version: tuple[str, int] | None = None
        self._known: dict[str, tuple[Key, bytes]] = {}
        self._recognised: dict[str, Key] = {}  # by what was sent: proving it again takes longer

    def create(
        self,
        tenant: str,
        scopes: Sequence[str],
        *,
        name: str = "",
        indexes: Sequence[str] | None = None,
        expires_in_s: float | None = None,
    ) -> tuple[Key, str]:
        """Make a key; it, and the text that its owner sends, which nobody can show again.

        Raises
        ------
        InvalidInputError
            No such scope, none at all, no such name, a time that is not ahead.
        """
        row, text = self._made(tenant, scopes, name=name, indexes=indexes, expires_in_s=expires_in_s)
        if sum(key.is_good_at(row.created_s) for key in self.all(tenant)) >= _MOST_KEYS:
            raise AccessError(f"tenant {tenant!r} has {_MOST_KEYS:,} good keys: revoke some first")
        self._file.insert(row)
        return _key(row), text

    def _made(
        self,
        tenant: str,
        scopes: Sequence[str],
        *,
        name: str,
        indexes: Sequence[str] | None,
        expires_in_s: float | None,
    ) -> tuple[KeyRow, str]:
        """A new key as it is to be stored, and as its owner sends it."""
        _check(tenant, scopes, name, indexes, expires_in_s)
        id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
        now_s = self._clock()
        row = KeyRow(
            id,
            tenant,
            name,
            _hash(secret),
            " ".join(sorted(set(scopes), key=SCOPES.index)),
            None if indexes is None else " ".join(sorted(set(indexes))),
            now_s,
            None if expires_in_s is None else now_s + expires_in_s,
        )
        return row, f"{_PREFIX}_{id}_{secret}"

    def all(self, tenant: str | None = None) -> list[Key]:
        """Every key, of one tenant or of all, in the order in which they were made."""
        return [_key(row) for row in self._file.rows() if tenant in (None, row.tenant)]

    def find(self, id: str, tenant: str | None = None) -> Key:
        for key in self.all(tenant):
            if key.id == id:
                return key
        raise NotFoundError(f"no key {id!r}")

    def revoke(self, id: str, tenant: str | None = None) -> Key:
        """Have a key end at once. One that has ended stays as it is."""
        self.find(id, tenant)
        self._file.set_revoked(id, self._clock())
        return self.find(id, tenant)

    def rotate(self, id: str, *, grace_s: float = 0.0, tenant: str | None = None) -> tuple[Key, str]:
        """A new key that may do the same; the old one ends after ``grace_s`` seconds."""
        old = self.find(id, tenant)
        now_s = self._clock()
        if not old.is_good_at(now_s):
            raise InvalidInputError(f"key {id!r} is {old.state_at(now_s)}: make a new one")
        if not 0 <= grace_s < float("inf"):
            raise InvalidInputError(f"grace must be 0 seconds or more, got {grace_s:g}")
        left_s = None if old.expires_s is None else old.expires_s - now_s
        indexes = None if old.indexes is None else sorted(old.indexes)
        row, text = self._made(
            old.tenant, sorted(old.scopes), name=old.name, indexes=indexes, expires_in_s=left_s
        )
        if not self._file.replace(id, row, now_s + grace_s):
            raise InvalidInputError(f"key {id!r} has ended meanwhile: make a new one")
        return _key(row), text

    @property
    def are_there(self) -> bool:
        """Whether any key was ever made here: from then on, one is needed."""
        self._refresh()
        return bool(self._known)

    def recognise(self, text: str) -> Key:
        """The key that somebody has sent.

        Raises
        ------
        Unauthenticated
            It is none of ours, or its time is over. Both read the same to who does not hold it.
        """
        self._refresh()
        key = self._recognised.get(text)
        if key is None:
            key = self._proven(text)
        if not key.is_good_at(self._clock()):
            raise Unauthenticated(f"the API key {key.id} is {key.state_at(self._clock())}")
        return key

    def _proven(self, text: str) -> Key:
        """The key that has this secret, which is kept in memory until some key changes."""
        version = self._version
        prefix, _, rest = text.partition("_")
        id, _, secret = rest.partition("_")
        known = self._known.get(id)
        expected = known[1] if known is not None else _NOBODYS
        is_right = hmac.compare_digest(expected, _hash(secret[:_LONGEST]))
        if known is None or prefix != _PREFIX or not is_right:
            raise Unauthenticated("the API key is not known here")
        with self._lock:
            if version == self._version:
                self._recognised[text] = known[0]
        return known[0]

    def _refresh(self) -> None:
        version = self._file.version()
        if version == self._version:
            return
        with self._lock:
            self._known = {row.id: (_key(row), row.hash) for row in self._file.rows()}
            self._recognised = {}
            self._version = version

    def close(self) -> None:
        self._file.close()


def _check(
    tenant: str,
    scopes: Sequence[str],
    name: str,
    indexes: Sequence[str] | None,
    expires_in_s: float | None,
) -> None:
    check_name(tenant, "tenant")
    if _FILES in tenant:
        raise InvalidInputError(f"a tenant's name may not have {_FILES!r} in it, as files do, got {tenant!r}")
    unknown = set(scopes) - set(SCOPES)
    if unknown or not scopes:
        shown = ", ".join(sorted(unknown)) or "none"
        raise InvalidInputError(f"scopes are {', '.join(SCOPES)}, got {shown}")
    if indexes is not None and len(indexes) > _MOST_INDEXES:
        raise InvalidInputError(f"a key is limited to {_MOST_INDEXES} indexes at most, got {len(indexes):,}")
    for index in indexes or ():
        check_name(index, "index")
    if len(name) > _NAME_LONGEST or not name.isprintable():
        raise InvalidInputError(f"a key's name is one line of up to {_NAME_LONGEST} letters, got {name!r}")
    if expires_in_s is not None and not 0 < expires_in_s <= _LONGEST_S:
        raise InvalidInputError(
            f"a key must expire later than now, within a hundred years, got {expires_in_s:g} seconds"
        )


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


_NOBODYS = _hash("")


def _key(row: KeyRow) -> Key:
    indexes = None if row.indexes is None else frozenset(row.indexes.split())
    scopes = frozenset(row.scopes.split())
    return Key(row.id, row.tenant, row.name, scopes, indexes, row.created_s, row.expires_s, row.revoked_s)
