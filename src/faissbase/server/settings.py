"""What a server is told: defaults, a TOML file, ``FAISSBASE_*`` in the environment, flags; the later wins."""

from __future__ import annotations

import ipaddress
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from faissbase.errors import InvalidInputError
from faissbase.sharded.bucket import is_url
from faissbase.sharded.deployment import is_deployed, parsed
from faissbase.types import DURABILITIES

ENVIRONMENT_PREFIX = "FAISSBASE_"
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^A-Z/?#@*,\s]+")
# What clients and the command line read.
_OTHER_VARIABLES = {f"{ENVIRONMENT_PREFIX}{name}" for name in ("API_KEY", "CONFIG", "COSTS", "DEBUG")}
LOG_FORMATS = ("auto", "json", "text")


def _setting(default: Any, about: str) -> Any:
    return field(default=default, metadata={"about": about})


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of ``faissbase serve``; each is a flag, a variable and a line of the file by its name."""

    data: str = _setting("./data", "the database's folder, made where there is none")
    host: str = _setting("127.0.0.1", "the address to listen on")
    port: int = _setting(8000, "the port to listen on; 0 takes a free one")
    tls_cert: str = _setting("", "file of the certificate chain (PEM); turns TLS on")
    tls_key: str = _setting("", "file of its private key (PEM)")
    tls_self_signed: bool = _setting(False, "TLS by a certificate of the server's own, for a first try")
    tls_client_ca: str = _setting("", "file of authorities (PEM); callers then need a certificate of theirs")
    tls_elsewhere: bool = _setting(False, "TLS ends before this server, as at a proxy: keys come without it")
    insecure: bool = _setting(False, "listen on a public address without keys or without TLS all the same")
    cors_origins: str = _setting("", "origins whose pages a browser lets ask, with commas between; or *")
    console: bool = _setting(True, "the console at /console, for people with a browser")
    durability: str = _setting("full", "full, or relaxed: a crash of the machine may lose the last writes")
    shards: str = _setting("", "URL of object storage whose datasets are served, instead of the folder's")
    follow: str = _setting("", "URL of object storage whose published versions are served, read-only")
    refresh_s: float = _setting(1.0, "seconds between two looks for newer versions of shards")
    shard_cache: str = _setting("", "folder for copies of shards; .shards in the data folder otherwise")
    memory_budget: int = _setting(0, "bytes that the indexes of one collection may take; 0 is no limit")
    threads: int = _setting(32, "threads for what is no search: so many writes can share a commit")
    max_body_bytes: int = _setting(64 << 20, "longest body of a request, also after decompression")
    max_held_bytes: int = _setting(1 << 30, "bytes of bodies held at once, beyond which requests get 503")
    max_vectors: int = _setting(10_000, "most vectors, ids or queries of one request")
    max_k: int = _setting(10_000, "most hits for one query")
    max_effort: int = _setting(65_536, "highest nprobe, ef_search and rerank")
    max_metadata_bytes: int = _setting(65_536, "longest metadata of one record, as JSON")
    max_answer_bytes: int = _setting(64 << 20, "about the longest answer with records, as JSON")
    max_requests_per_s: float = _setting(0.0, "requests of one tenant a second; 0 is no limit")
    max_indexes: int = _setting(1_000, "most indexes of one tenant; 0 is no limit")
    max_tenant_vectors: int = _setting(0, "most records of one tenant, in all its indexes; 0 is no limit")
    max_tenant_bytes: int = _setting(0, "most bytes of the files of one tenant; 0 is no limit")
    max_faiss_bytes: int = _setting(8 << 30, "longest body of a call by the drop-in client for FAISS")
    faiss_memory_bytes: int = _setting(0, "bytes for one tenant's FAISS objects; 0 is half of the machine's")
    faiss_gpu_bytes: int = _setting(0, "bytes of GPU memory for one tenant's FAISS objects; 0: as there is")
    faiss_lease_s: float = _setting(900.0, "seconds that FAISS objects without a name outlive their client")
    body_timeout_s: float = _setting(30.0, "seconds that a body may take to arrive")
    shutdown_timeout_s: float = _setting(30.0, "seconds that running requests have when the server stops")
    log_format: str = _setting("auto", "json, text, or auto: text on a terminal")
    otel_endpoint: str = _setting("", "address of an OpenTelemetry collector (OTLP over HTTP)")

    @property
    def url(self) -> str | None:
        """The object storage that is served, where it is not the folder."""
        return self.shards or self.follow or None

    @property
    def is_public(self) -> bool:
        """Whether others than this machine can reach it."""
        return not is_own_name(self.host)

    @property
    def has_quotas(self) -> bool:
        """Whether what a tenant stores is bounded."""
        return bool(self.max_tenant_vectors or self.max_tenant_bytes)

    @property
    def has_tls(self) -> bool:
        return bool(self.tls_cert) or self.tls_self_signed

    @property
    def origins(self) -> list[str]:
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]


def is_own_name(host: str) -> bool:
    """Whether a name or address can mean nothing but this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


NAMES = tuple(each.name for each in fields(Settings))
_TYPES = {each.name: type(each.default) for each in fields(Settings)}
ABOUT: Mapping[str, str] = {each.name: each.metadata["about"] for each in fields(Settings)}
DEFAULTS: Mapping[str, Any] = {each.name: each.default for each in fields(Settings)}
_LEAST = {
    "port": 0,
    "refresh_s": 0.01,
    "memory_budget": 0,
    "threads": 1,
    "max_held_bytes": 1024,
    "max_body_bytes": 1024,
    "max_faiss_bytes": 1024,
    "faiss_memory_bytes": 0,
    "faiss_gpu_bytes": 0,
    "faiss_lease_s": 1,
    "max_vectors": 1,
    "max_k": 1,
    "max_effort": 1,
    "max_metadata_bytes": 2,
    "max_answer_bytes": 1024,
    "max_indexes": 0,
    "max_tenant_vectors": 0,
    "max_tenant_bytes": 0,
    "max_requests_per_s": 0,
    "body_timeout_s": 0.001,
    "shutdown_timeout_s": 0,
}


def load(
    flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None
) -> tuple[Settings, dict[str, str]]:
    """The settings, and where each came from: ``default``, the file, the variable or the flag.

    Raises
    ------
    InvalidInputError
        An unknown name, or a value that is not of its kind; says which, and from where.
    """
    values: dict[str, Any] = dict(DEFAULTS)
    sources = dict.fromkeys(NAMES, "default")
    for source, given in (
        (str(file), _from_file(file) if file else {}),
        ("environment", _from_environment(environment)),
        ("flag", {name: value for name, value in flags.items() if value is not None}),
    ):
        for name, value in given.items():
            values[name] = _checked(name, value, source)
            sources[name] = f"{ENVIRONMENT_PREFIX}{name.upper()}" if source == "environment" else source
    settings = Settings(**values)
    _check_together(settings)
    return settings, sources


def _from_file(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInputError(f"cannot read settings from {path}: {error}") from error
    unknown = sorted(set(found) - set(NAMES))
    if unknown:
        raise InvalidInputError(f"{path}: unknown setting {unknown[0]!r}; there are {', '.join(NAMES)}")
    return found


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    names = ((name, f"{ENVIRONMENT_PREFIX}{name.upper()}") for name in NAMES)
    return {name: environment[variable] for name, variable in names if environment.get(variable)}


def strange_variables(environment: Mapping[str, str]) -> list[str]:
    """The variables that look like settings and are none, as one that is mistyped."""
    known = {f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in NAMES} | _OTHER_VARIABLES
    return sorted(name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known)


def _checked(name: str, value: Any, source: str) -> Any:
    wanted = _TYPES[name]
    try:
        found = _converted(value, wanted)
    except ValueError:
        raise InvalidInputError(f"{name} must be {_KINDS[wanted]}, got {value!r} ({source})") from None
    least = _LEAST.get(name)
    if least is not None and not least <= found < math.inf:
        raise InvalidInputError(f"{name} must be {least} or more, got {value!r} ({source})")
    if name == "port" and found > 65_535:
        raise InvalidInputError(f"port must be at most 65535, got {found} ({source})")
    for choice, allowed in (("durability", DURABILITIES), ("log_format", LOG_FORMATS)):
        if name == choice and found not in allowed:
            raise InvalidInputError(f"{name} must be one of {', '.join(allowed)}, got {found!r} ({source})")
    return found.removeprefix("[").removesuffix("]") if name == "host" else found  # as in a URL


_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_WORDS = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


def _converted(value: Any, wanted: type) -> Any:
    """``value`` as ``wanted``, from text or as TOML gives it; ValueError where it is something else."""
    if wanted is bool:
        if isinstance(value, str) and value.lower() in _WORDS:
            return _WORDS[value.lower()]
    elif isinstance(value, str):
        return wanted(value)
    elif wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not wanted:
        raise ValueError
    return value


def _check_urls(settings: Settings) -> None:
    if settings.shards and settings.follow:
        raise InvalidInputError("shards serves a store, follow a read-only copy of one: give one of both")
    for name in ("shards", "follow"):
        url = getattr(settings, name)
        if url and is_deployed(url):
            parsed(url)
        elif url and not is_url(url):
            raise InvalidInputError(
                f"{name} must be a URL such as s3://bucket/prefix or ray://auto, got {url!r}"
            )


def _check_together(settings: Settings) -> None:
    _check_urls(settings)
    if settings.tls_self_signed and (settings.tls_cert or settings.tls_key):
        raise InvalidInputError(
            "tls_self_signed makes a certificate: give it, or tls_cert and tls_key, not both"
        )
    if bool(settings.tls_cert) != bool(settings.tls_key):
        given, missing = ("tls_cert", "tls_key") if settings.tls_cert else ("tls_key", "tls_cert")
        raise InvalidInputError(f"{given} needs {missing} too")
    if settings.tls_client_ca and not settings.has_tls:
        raise InvalidInputError("tls_client_ca needs tls_cert and tls_key too, or tls_self_signed")
    for name in ("tls_cert", "tls_key", "tls_client_ca"):
        path = getattr(settings, name)
        if path and not Path(path).is_file():
            raise InvalidInputError(f"{name}: no file {path}")
    if settings.otel_endpoint and not settings.otel_endpoint.startswith(("http://", "https://")):
        raise InvalidInputError(f"otel_endpoint must be an http or https URL, got {settings.otel_endpoint!r}")
    for origin in settings.origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise InvalidInputError(
                f"cors_origins takes origins as browsers send them (https://a.example), got {origin!r}"
            )
