"""A headless Chromium for pages: without a network, and with everything that goes wrong in it kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@contextmanager
def browser() -> Iterator[Any]:
    """A browser; the test is skipped where none is installed."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no Chromium is installed ({', '.join(BROWSERS)}): apt-get install chromium-headless-shell")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make setup")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


def opened(found: Any, file: Path, **options: Any) -> Any:
    """A page of `file`; its `seen` holds requests, messages of the console and errors."""
    page = found.new_page(viewport={"width": 1280, "height": 900}, **options)
    page.seen = {"requests": [], "console": [], "errors": []}
    page.on("request", lambda request: page.seen["requests"].append(request.url))
    page.on("console", lambda message: page.seen["console"].append(message.text))
    page.on("pageerror", lambda error: page.seen["errors"].append(str(error)))
    page.goto(file.as_uri())
    return page
