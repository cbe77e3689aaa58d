"""What happens to a test marked `browser` on a machine without one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

MARKED = "import pytest\n\n@pytest.mark.browser\ndef test_page():\n    pass\n"


def run(folder: Path, **environment: str) -> str:
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    (folder / "test_page.py").write_text(MARKED)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    browser: needs Chromium\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WHENCE_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "-p", "no:jaxtyping", "."]
    done = subprocess.run(command, cwd=folder, env={**kept, **environment}, capture_output=True, text=True, check=False)
    return done.stdout


def test_without_a_browser_it_is_skipped_and_told_how_to_get_one(tmp_path: Path) -> None:
    out = run(tmp_path, PATH="")
    assert "1 skipped" in out
    assert "apt-get install chromium" in out


def test_without_a_browser_it_fails_where_one_is_required(tmp_path: Path) -> None:
    out = run(tmp_path, PATH="", WHENCE_REQUIRE_BROWSER="1")
    assert "1 error" in out
    assert "apt-get install chromium" in out


def test_a_browser_on_the_path_is_found(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "google-chrome").touch(mode=0o755)
    assert "1 passed" in run(tmp_path, PATH=str(tmp_path / "bin"), WHENCE_REQUIRE_BROWSER="1")
