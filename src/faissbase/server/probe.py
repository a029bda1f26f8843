"""Whether the server that this environment describes takes requests: ``python -m faissbase.server.probe``.

The health check of the image, which is run every few seconds: it loads neither the server nor its settings,
but reads the few that it needs. Ends with 0 where the server is ready, with 1 where not.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PATH = "/v1/health/ready"
_TIMEOUT_S = 2.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_YES = ("true", "1", "yes", "on")


def is_ready(environment: Mapping[str, str]) -> bool:
    """Whether who listens at the address of these settings says that it is ready.

    A server that lets in callers with a certificate alone is only looked at whether it listens.
    """
    settings = _settings(environment)
    connection = _connection(settings)
    try:
        if settings.get("tls_client_ca"):
            connection.connect()
            return True
        connection.request("GET", _PATH)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _settings(environment: Mapping[str, str]) -> dict[str, Any]:
    """Those of the file, and over them those of the environment."""
    found: dict[str, Any] = {}
    if environment.get("FAISSBASE_CONFIG"):
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        found = tomllib.loads(Path(environment["FAISSBASE_CONFIG"]).read_text(encoding="utf-8"))
    prefix = "FAISSBASE_"
    return found | {
        name.removeprefix(prefix).lower(): value
        for name, value in environment.items()
        if name.startswith(prefix) and value
    }


def _connection(settings: Mapping[str, Any]) -> http.client.HTTPConnection:
    host = str(settings.get("host", "127.0.0.1"))
    host, port = _EVERYWHERE.get(host, host), int(settings.get("port", 8000))
    has_tls = settings.get("tls_cert") or str(settings.get("tls_self_signed", "")).lower() in _YES
    if not has_tls or settings.get("tls_client_ca"):
        return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    context = ssl.create_default_context()
    context.check_hostname = False  # it is this machine's own, by whatever name it is known elsewhere
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)


if __name__ == "__main__":
    sys.exit(0 if is_ready(os.environ) else 1)
