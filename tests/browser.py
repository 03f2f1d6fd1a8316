"""A real browser: Chromium, as Debian packages it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.servers.process import AbsentError


@contextmanager
def opened(file: Path, width: int) -> Iterator[tuple[Page, list[str]]]:
    """A file in a window of so many pixels, and what went wrong or was asked for elsewhere while it loaded.

    Raises:
        AbsentError: Chromium is not there.
    """
    program = shutil.which("chromium")
    if program is None:
        raise AbsentError("chromium is not there (Debian: chromium)")
    address, odd = file.absolute().as_uri(), []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("request", lambda request: odd.append(request.url) if _elsewhere(request.url, address) else None)
        page.on("console", lambda message: odd.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: odd.append(str(error)))
        page.goto(address)
        try:
            yield page, odd
        finally:
            browser.close()


def _elsewhere(url: str, address: str) -> bool:
    return url != address and not url.startswith("data:")
