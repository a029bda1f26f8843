"""A real browser on the console of a real server, and what must never happen in it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PATIENCE_MS = 20_000
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
HOW = "python tools/get_browser.py brings one, and CHROMIUM=/path/to/it names another"
WATCH = """document.addEventListener("securitypolicyviolation", (event) =>
    console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`));"""


def find_browser() -> str | None:
    """The program of a browser: the one that is named, one of this environment, or one of the machine."""
    places = (os.environ.get("CHROMIUM"), str(Path(sys.prefix) / "browser" / "chromium"), *NAMES)
    return next((found for place in places if place and (found := shutil.which(place))), None)


@contextmanager
def launched() -> Iterator[Any]:
    """A browser without a window; skips the test where none can be had."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = find_browser()
    if program is None:
        pytest.skip(f"no browser: {HOW}")
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"{program} does not start ({str(error).splitlines()[0]}): {HOW}")
        yield browser
        browser.close()


@dataclass
class Console:
    """One tab on a server. What the page must not do is gathered in ``troubles``."""

    page: Any
    url: str
    troubles: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def watch(self) -> Console:
        page = self.page
        page.set_default_timeout(PATIENCE_MS)
        page.add_init_script(WATCH)
        page.on("dialog", self._dismiss)
        page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        page.on("console", self._said)
        page.on("request", lambda request: self.asked.append(request.url))
        return self

    def _dismiss(self, dialog: Any) -> None:
        self.troubles.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _said(self, message: Any) -> None:
        is_an_answer = message.text.startswith("Failed to load resource")  # a status of 400 or more
        if message.type in ("error", "warning") and not is_an_answer:
            self.troubles.append(f"console: {message.text}")

    def check(self) -> None:
        """Nothing happened that must not, and nobody else was asked."""
        assert self.troubles == []
        assert [url for url in self.asked if not url.startswith((self.url, "data:", "blob:"))] == []

    # ---- what a person does ----------------------------------------------------------------------

    def open(self, place: str = "") -> Console:
        self.page.goto(f"{self.url}/console/{place}")
        return self

    def sign_in(self, key: str) -> Console:
        self.page.get_by_label("API key").fill(key)
        self.press("Sign in")
        return self

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def type(self, label: str, text: str) -> None:
        self.page.get_by_role("textbox", name=label, exact=True).fill(text)

    def choose(self, mode: str) -> None:
        self.page.get_by_role("group", name="Search by").get_by_text(mode, exact=True).click()

    # ---- what a person sees ----------------------------------------------------------------------

    def sees(self, text: str) -> None:
        self.page.get_by_text(text).first.wait_for()

    def heading(self, text: str) -> None:
        self.page.get_by_role("heading", name=text, exact=True, level=1).wait_for()

    def refusal(self) -> str:
        """The error that is shown."""
        return str(self.page.get_by_role("alert").inner_text())

    def ids(self, table: str) -> list[str]:
        """The first column that can be opened, of the table of this name."""
        found = self.page.get_by_role("table", name=table)
        found.wait_for()
        return [str(each) for each in found.locator("td.id").all_inner_texts()]

    def row(self, text: str) -> Any:
        return self.page.get_by_role("row").filter(has_text=text)

    def window(self) -> Any:
        """What is open over the page."""
        return self.page.get_by_role("dialog")
