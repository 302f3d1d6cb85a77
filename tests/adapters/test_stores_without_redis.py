"""Redis named as the state where redis-py is not installed: the packages only suggest it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITHOUT_REDIS = "import sys; sys.modules['redis'] = None; from {module} import main; main()"
EX_CONFIG = 78


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("milters.greylist.__main__", ["--check"]),
        ("policyd.__main__", ["--check"]),
        ("postmaster.__main__", ["greylist", "list"]),
        ("postmaster.__main__", ["limits", "list"]),
    ],
    ids=["greylist", "policyd", "greylist list", "limits list"],
)
def test_a_configuration_with_redis_and_no_redis_py_says_what_to_install(
    tmp_path: Path, module: str, words: list[str]
) -> None:
    config = tmp_path / "mailward.toml"
    config.write_text('state = "redis://127.0.0.1"\n')
    command = [sys.executable, "-c", WITHOUT_REDIS.format(module=module), *words, "--config", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == EX_CONFIG, done.stderr
    assert "state: for Redis or Valkey install redis-py: apt-get install python3-redis" in done.stderr
    assert "Traceback" not in done.stderr
