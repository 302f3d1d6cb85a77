"""What Tab offers beside commands, options and choices. Where nothing can be read nothing is offered: Tab never complains."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from mailward.model.errors import ConfigError
from mailward.policy.limits import DEFAULT_LIMITS
from mailward.settings.load import DEFAULT_PATH, read_sections, structure
from mailward.settings.policyd import Settings


class _Folder(click.Path):
    """The path of a folder."""

    def shell_complete(
        self, _context: click.Context, _parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="dir")]


# Neither says anything of what is there: that is the command's own affair, which has a status for each case.
ANY_FILE = click.Path(readable=False)
FOLDER = _Folder(path_type=Path, readable=False)


def configured_domains(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Offer the domains that the configuration has keys for, whoever may read these."""
    table = read_sections(_config(context)).tables.get("dkim-sign")
    domains = table.get("domain") if isinstance(table, dict) else None
    domains = domains if isinstance(domains, list) else []
    found = {str(domain.get("name")) for domain in domains if isinstance(domain, dict)}
    return sorted(name for name in found if name != "*" and name.startswith(incomplete))


def limits_of_accounts(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Offer the names of the limits that count what an account does."""
    try:
        settings = structure(read_sections(_config(context)), Settings)
    except ConfigError:
        return []
    named = [(table.name, "sasl_username" in table.per) for table in settings.policyd.limit]
    named = named or [(limit.name, limit.is_of_accounts) for limit in DEFAULT_LIMITS]
    return [name for name, is_of_accounts in named if is_of_accounts and name.startswith(incomplete)]


def next_of(names: tuple[str, ...], incomplete: str) -> list[str]:
    """Offer what may come next in a list of names with commas between them.

    >>> next_of(("greylist", "policyd"), "greylist,p")
    ['greylist,policyd']
    """
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [f"{before}{comma}{name}" for name in names if name.startswith(last) and name not in taken]


def _config(context: click.Context) -> Path:
    """Return the configuration: the option's value, which some commands keep as the context's object."""
    return Path(context.params.get("config") or context.obj or DEFAULT_PATH)
