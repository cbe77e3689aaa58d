import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

# Nothing that a fresh profile would fetch or ask; the sandbox needs rights that a container does not give.
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --hide-scrollbars"
)


def browser() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("WHENCE_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser") and browser() is None:
        reason = "no Chromium: apt-get install chromium, or set WHENCE_CHROMIUM to one"
        (pytest.fail if os.environ.get("WHENCE_REQUIRE_BROWSER") == "1" else pytest.skip)(reason)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., str]:
    """Opens a page of HTML in a headless browser and returns its DOM after its scripts have run."""

    def opened(page: str, width: int = 1280) -> str:
        file = tmp_path / "page.html"
        file.write_text(page, encoding="utf-8")
        program = browser()
        assert program is not None, "mark the test with pytest.mark.browser"
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [program, *FLAGS.split(), profile, f"--window-size={width},800", "--dump-dom", file.as_uri()]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    return opened
