"""Files beside the configuration: which change is said, and when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mailward.daemon.watched import LOOK_SECONDS, WatchedFiles

OLD, NEW = "nameserver 192.0.2.53\n", "nameserver 192.0.2.54\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "resolv.conf"
    path.write_text(OLD)
    return path


def looks(path: Path, *steps: Callable[[], object] | None) -> list[bool]:
    """Look once, then after each step, and say whether the file was told as changed."""
    files, told = WatchedFiles(), []
    assert files.changed([path], 0.0) == []
    for number, step in enumerate(steps, 1):
        if step is not None:
            step()
        told.append(files.changed([path], number * LOOK_SECONDS) == [path])
    return told


def test_a_change_is_told_once_and_after_one_more_look(path: Path) -> None:
    assert looks(path, lambda: path.write_text(NEW), None, None) == [False, True, False]


def test_a_file_that_goes_on_changing_is_waited_for(path: Path) -> None:
    assert looks(path, lambda: path.write_text(NEW), lambda: path.write_text(NEW * 2), None) == [False, False, True]


def test_the_same_content_written_again_is_no_change(path: Path) -> None:
    def write_again() -> None:
        path.unlink()
        path.write_text(OLD)

    assert looks(path, write_again, None) == [False, False]


def test_a_file_that_is_gone_has_not_changed_until_it_is_back(path: Path) -> None:
    assert looks(path, path.unlink, None, lambda: path.write_text(NEW), None) == [False, False, False, True]


def test_a_file_that_comes_later_is_a_change(path: Path) -> None:
    path.unlink()
    assert looks(path, lambda: path.write_text(NEW), None) == [False, True]


def test_nothing_is_read_between_two_looks(path: Path) -> None:
    files = WatchedFiles()
    files.changed([path], 0.0)
    path.write_text(NEW)
    assert not files.changed([path], LOOK_SECONDS - 0.1)
    files.changed([path], LOOK_SECONDS)
    assert files.changed([path], 2 * LOOK_SECONDS) == [path]
