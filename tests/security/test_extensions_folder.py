"""H118: a folder of extensions is only a folder: nothing in it is imported, installed or run by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parent.parent.parent


def test_H118_code_that_lies_in_the_data_folder_is_never_run_by_itself(tmp_path: Path) -> None:
    proof = tmp_path / "it-ran"
    code = f"from pathlib import Path; Path({str(proof)!r}).touch()\n"
    folder = tmp_path / "data" / "extensions" / "evil"
    (folder / "scripts").mkdir(parents=True)
    for name in ("install.py", "scripts/evil.py", "preload.py"):
        (folder / name).write_text(code)
    for name in ("sitecustomize.py", "models/__init__.py", "extensions.py"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "webui", "models", "--data-dir", str(tmp_path / "data")],
        cwd=REPO_ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert not proof.exists()
