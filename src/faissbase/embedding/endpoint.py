"""Requests to an OpenAI-compatible server: OpenAI, Ollama, vLLM, TEI. Knows HTTP, no model.

Needs httpx (extra ``client``), asked for when an endpoint is made.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import orjson

from faissbase.errors import AccessError, FaissbaseError, InvalidInputError, NotReadyError, UnavailableError
from faissbase.sharing import EachProcess

BASE_URL = "https://api.openai.com/v1"
_RETRIED = (408, 409, 429, 500, 502, 503, 504)
_FIRST_WAIT_S = 0.5
_MOST_WAIT_S = 8.0
_MOST_TOLD_S = 60.0
_SHOWN = 300


def _httpx() -> ModuleType:
    try:
        import httpx
    except ImportError as error:
        raise NotReadyError(
            'calling a model over HTTP needs httpx: pip install "faissbase[client]"'
        ) from error
    return httpx


class Endpoint:
    """One OpenAI-compatible server. Safe to share between threads.

    Parameters
    ----------
    base_url : str, optional
        With its ``/v1``. Where none is given: ``OPENAI_BASE_URL`` in the environment, or OpenAI itself.
    api_key : str, optional
        Where none is given: ``OPENAI_API_KEY`` in the environment. Servers of one's own often need none.
    timeout_s : float
        How long one answer may take, in seconds.
    retries : int
        How often a request is tried again that was refused for now (408, 409, 429, 5xx), timed out or found
        nobody, after 0.5, 1, 2, ... seconds at random, or after what ``Retry-After`` says, up to a minute.
    sleep : callable
        Waits for so many seconds.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 60.0,
        retries: int = 3,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        httpx = _httpx()
        url = base_url or os.environ.get("OPENAI_BASE_URL") or BASE_URL
        if not url.startswith(("http://", "https://")):
            raise InvalidInputError(f"base_url is http://... or https://..., got {url!r}")
        if retries < 0 or not timeout_s > 0:
            raise InvalidInputError(f"retries ≥ 0 and timeout_s > 0 wanted, got {retries} and {timeout_s}")
        key = api_key or os.environ.get("OPENAI_API_KEY")
        self.base_url = url.rstrip("/")
        self._retries = retries
        self._sleep = sleep
        self._httpx = httpx
        self._timeout_s = timeout_s
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._clients = EachProcess(lambda: httpx.Client(timeout=timeout_s, headers=headers))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The decoded JSON that ``path`` answers.

        Raises
        ------
        InvalidInputError
            The server says that the request is wrong.
        AccessError
            It does not take the key.
        UnavailableError
            It could not be reached, is busy, or answers what is no JSON, after every try.
        """
        content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        for tried in range(self._retries + 1):
            fault, wait_s = self._try(path, content)
            if not isinstance(fault, UnavailableError):
                break
            if tried < self._retries:
                self._sleep(_wait_s(tried) if wait_s is None else wait_s)
        if isinstance(fault, FaissbaseError):
            raise fault
        return fault

    def _try(self, path: str, content: bytes) -> tuple[Any, float | None]:
        """The answer, or the error to raise; and how long the server asks to wait, if it does."""
        url = f"{self.base_url}/{path}"
        try:
            status, headers, found = self._exchange(url, content)
        except self._httpx.RequestError as error:
            return UnavailableError(f"{url}: {type(error).__name__}: {error}"), None
        if status >= 400:
            return _fault(url, status, found), _told_s(headers)
        try:
            return orjson.loads(found), None
        except orjson.JSONDecodeError:
            return UnavailableError(f"{url} answered no JSON: {_shown(found)}"), None

    def _exchange(self, url: str, content: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body; httpx bounds each wait, and the sum of them is bounded here."""
        until = time.monotonic() + self._timeout_s
        headers = {"content-type": "application/json"}
        parts = []
        with self._clients.own().stream("POST", url, content=content, headers=headers) as answer:
            for part in answer.iter_bytes():
                parts.append(part)
                if time.monotonic() > until:
                    raise self._httpx.ReadTimeout(f"the answer takes longer than {self._timeout_s} s")
        return answer.status_code, answer.headers, b"".join(parts)

    def close(self) -> None:
        """Close the connections."""
        self._clients.own().close()


def _wait_s(tried: int) -> float:
    return float(min(_MOST_WAIT_S, _FIRST_WAIT_S * 2**tried) * random.uniform(0.5, 1.0))


def _told_s(headers: Mapping[str, str]) -> float | None:
    try:
        return min(_MOST_TOLD_S, max(0.0, float(headers["retry-after"])))
    except (KeyError, ValueError):  # a date is not worth reading: the usual wait does
        return None


def _shown(content: bytes) -> str:
    return repr(content[:_SHOWN].decode(errors="replace"))


def _fault(url: str, status: int, content: bytes) -> FaissbaseError:
    message = f"{url} answered {status}: {_shown(content)}"
    if status in (401, 403):
        return AccessError(message)
    return UnavailableError(message) if status in _RETRIED or status > 500 else InvalidInputError(message)
