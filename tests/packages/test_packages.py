"""The packages in Debian 12 and 13: built there, judged by lintian, and taken through every script of debian/tests/.

Each script has a machine of its own. They are those that autopkgtest runs in a real container. Nothing here has a network but
its own loopback interface: what is installed comes from the package cache of the root, which debian/control filled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.packages import roots
from tests.packages.built import Built, build
from tests.packages.scripts import SCRIPTS, run_script
from tests.support.processes import open_folder

Run = tuple[str, str]  # a release, and a script with its arguments


class Work:
    """All of it, begun at once; a test waits for its own. The other half of the cores is for whatever runs beside it."""

    def __init__(self, folder: Path, runs: list[Run]) -> None:
        self._pool = ThreadPoolExecutor(max(1, (os.cpu_count() or 2) // 2))
        self._folder = folder
        releases = dict.fromkeys(release for release, _ in runs)
        self.built = {release: self._pool.submit(self._build, release) for release in releases}
        self.ran: dict[Run, Future[str]] = {run: self._pool.submit(self._run, *run) for run in runs if run[1]}

    def close(self) -> None:
        """Wait for what has begun; the rest is not begun."""
        self._pool.shutdown(cancel_futures=True)

    def _build(self, release: str) -> Built:
        roots.make(release)
        return build(roots.build_root(release), self._folder / release)

    def _run(self, release: str, script: str) -> str:
        return run_script(release, script, self.built[release].result().debs)


@pytest.fixture(scope="module")
def work(request: pytest.FixtureRequest) -> Iterator[Work]:
    """Begin what the chosen tests of this file ask for."""
    items = [item for item in request.session.items if item.path == request.path and isinstance(item, pytest.Function)]
    chosen = [item.callspec.params for item in items]
    with open_folder("mailward-packages-") as folder:
        made = Work(folder, [(str(each["release"]), str(each.get("script", ""))) for each in chosen])
        try:
            yield made
        finally:
            made.close()


@pytest.mark.parametrize("release", roots.RELEASES)
def test_the_source_builds_there_and_lintian_has_nothing_to_say(work: Work, release: str) -> None:
    built = work.built[release].result()
    names = {path.name.partition("_")[0] for path in built.debs}
    daemons = {f"mailward-{name}" for name in ("dkim-sign", "auth-verify", "greylist", "policyd")}
    assert names == daemons | {"mailward", "mailward-common"}
    assert built.tags == ()


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("release", roots.RELEASES)
def test_a_postmaster_of_that_release_can(work: Work, release: str, script: str) -> None:
    work.ran[release, script].result()
