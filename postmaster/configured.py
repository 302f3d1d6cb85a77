"""A group of sub-commands, each of which takes the option that says where the configuration is."""

from __future__ import annotations

from pathlib import Path

import click

from mailward.settings.load import DEFAULT_PATH


class ConfiguredGroup(click.Group):
    """Gives each sub-command `--config`."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        cmd.params.append(
            click.Option(
                ["--config"],
                type=click.Path(path_type=Path),
                expose_value=False,
                callback=_remember,
                help=f"The configuration.  [default: {DEFAULT_PATH}]",
            )
        )
        super().add_command(cmd, name)


def config_path() -> Path | None:
    """Return what the running sub-command was given; None is the usual place."""
    path: Path | None = click.get_current_context().obj
    return path


def _remember(context: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    context.obj = value
