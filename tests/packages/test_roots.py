"""Roots are kept, and nothing else is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.packages import roots


def test_what_a_killed_run_was_making_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots, "FOLDER", tmp_path)
    for name in ("mail_root", "ready_root", "build_root"):
        monkeypatch.setattr(roots, name, lambda release: None)
    with subprocess.Popen(["true"]) as gone:
        pass
    complete, other = "bookworm-base-0123456789", f"trixie-mail-0123456789.unfinished-{gone.pid}"
    being_made = f"bookworm-mail-0123456789.unfinished-{os.getpid()}"
    abandoned = f"bookworm-mail-9876543210.unfinished-{gone.pid}"
    for name in (complete, other, being_made, abandoned):
        (tmp_path / name / "etc").mkdir(parents=True)
    roots.make("bookworm")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == sorted((complete, other, being_made))
