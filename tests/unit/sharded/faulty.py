"""A bucket that fails: at the n-th call of an operation, or by chance from a seed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from faissbase.errors import UnavailableError
from faissbase.sharded.bucket import Bucket, File, Stored

OPERATIONS = ("get", "create", "list", "folders", "delete", "upload", "download", "size", "read")
# What may go wrong: before anything is done, after it was done, and half done.
FAULTS = {
    "get": ("fail", "delay"),
    "create": ("fail", "ambiguous", "delay"),
    "list": ("fail", "delay"),
    "folders": ("fail",),
    "delete": ("fail", "ambiguous"),
    "upload": ("fail", "ambiguous", "tear", "delay"),
    "download": ("fail", "delay"),
    "size": ("fail",),
    "read": ("fail", "tear", "delay"),
}
_DELAY_S = 0.002

Choose = Callable[[str, int], "str | None"]


def nowhere(operation: str, call: int) -> str | None:
    """No fault."""
    return None


def at(operation: str, nth: int, fault: str) -> Choose:
    """One fault, at the nth call of an operation, from 0."""
    return lambda called, call: fault if (called, call) == (operation, nth) else None


def by_chance(seed: int, share: float) -> Choose:
    """A share of all calls fails, each in one of the ways it can."""
    chance = random.Random(seed)

    def choose(operation: str, call: int) -> str | None:
        return chance.choice(FAULTS[operation]) if chance.random() < share else None

    return choose


class FaultyBucket:
    """Another bucket whose calls fail where ``choose`` says so. Counts the calls."""

    def __init__(self, bucket: Bucket, choose: Choose = nowhere) -> None:
        self._bucket = bucket
        self.choose = choose
        self.calls = dict.fromkeys(OPERATIONS, 0)
        self.n_faults = 0

    @property
    def url(self) -> str:
        return self._bucket.url

    def get(self, key: str) -> bytes:
        self._fault("get", key)
        return self._bucket.get(key)

    def create(self, key: str, content: bytes) -> bool:
        fault = self._fault("create", key)
        is_created = self._bucket.create(key, content)
        self._after(fault, key)
        return is_created

    def list(self, prefix: str, after: str | None = None) -> Iterator[Stored]:
        self._fault("list", prefix)
        return self._bucket.list(prefix, after)

    def folders(self) -> tuple[str, ...]:
        self._fault("folders", "")
        return self._bucket.folders()

    def delete(self, keys: Sequence[str]) -> None:
        fault = self._fault("delete", str(len(keys)))
        self._bucket.delete(keys)
        self._after(fault, str(len(keys)))

    def upload(self, source: Path, path: str, key: str) -> File:
        fault = self._fault("upload", key)
        if fault == "tear":
            content = source.read_bytes()
            self._bucket.create(key, content[: len(content) // 2])
            raise UnavailableError(f"{key}: the connection broke within the upload")
        file = self._bucket.upload(source, path, key)
        self._after(fault, key)
        return file

    def download(self, file: File, target: Path) -> None:
        self._fault("download", file.key)
        self._bucket.download(file, target)

    @property
    def is_here(self) -> bool:
        return self._bucket.is_here

    def size(self, key: str) -> int:
        self._fault("size", key)
        return self._bucket.size(key)

    def read(self, key: str, start: int, size_bytes: int) -> bytes:
        fault = self._fault("read", key)
        found = self._bucket.read(key, start, size_bytes)
        return found[: len(found) // 2] if fault == "tear" else found

    def _fault(self, operation: str, what: str) -> str | None:
        fault = self.choose(operation, self.calls[operation])
        self.calls[operation] += 1
        self.n_faults += fault not in (None, "delay")
        if fault == "fail":
            raise UnavailableError(f"{operation} {what}: refused by a fault")
        if fault == "delay":
            time.sleep(_DELAY_S)
        return fault

    def _after(self, fault: str | None, what: str) -> None:
        if fault == "ambiguous":
            raise UnavailableError(f"{what}: done, but the answer was lost by a fault")
