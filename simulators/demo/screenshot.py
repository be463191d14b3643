"""`python -m simulators.demo.screenshot PAGE.html PICTURE.png`: headless Chromium opens a page without any network."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


def take(page_file: Path, picture: Path | None) -> tuple[str, list[str]]:
    """Open a file; returns its text as shown and every address that it asked for besides itself."""
    from playwright.sync_api import sync_playwright

    asked: list[str] = []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory(prefix="simsite-") as profile:
        browser = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=CHROMIUM,
            headless=True,
            args=FLAGS,
            viewport={"width": 1100, "height": 900},
        )
        try:
            page = browser.new_page()
            page.on("request", lambda request: asked.append(request.url))
            page.goto(page_file.resolve().as_uri())
            text = page.inner_text("body")
            if picture is not None:
                page.screenshot(path=str(picture), full_page=True)
        finally:
            browser.close()
    own = page_file.resolve().as_uri()
    return text, [url for url in asked if url != own and not url.startswith("data:")]


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]))
