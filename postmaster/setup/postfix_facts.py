"""What a Postfix is configured to do, read from postconf as values. Nothing here changes anything."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from postmaster.setup.change import MainSetting, ServiceSetting
from postmaster.setup.programs import find_program, output_of

# What the plan asks of main.cf beside what is set there: their defaults count as well.
ASKED = (
    "config_directory",
    "compatibility_level",
    "content_filter",
    "disable_mime_output_conversion",
    "inet_interfaces",
    "internal_mail_filter_classes",
    "mail_version",
    "message_strip_characters",
    "multi_instance_directories",
    "non_smtpd_milters",
    "postscreen_bare_newline_enable",
    "postscreen_non_smtp_command_enable",
    "postscreen_pipelining_enable",
    "queue_directory",
    "receive_override_options",
    "smtp_line_length_limit",
    "smtpd_end_of_data_restrictions",
    "smtpd_milter_maps",
    "smtpd_milters",
    "smtpd_proxy_filter",
    "smtpd_recipient_restrictions",
    "smtpd_relay_before_recipient_restrictions",
    "smtpd_sasl_auth_enable",
    "smtpd_sasl_path",
    "smtpd_sasl_type",
)
MAX_DEPTH = 10  # of $name in $name: Postfix itself gives up at 100, and who reads this at five

_REFERENCE = re.compile(r"\$(?:(\w+)|\{(\w+)\}|\((\w+)\))")
_UNUSED = re.compile(r"unused parameter: (\w+)=(.*)")


@dataclass(frozen=True, slots=True)
class Service:
    """A line of master.cf: its name as `postconf -P` writes it ("submission/inet"), its program, and its own settings.

    `command` is the program with its arguments.
    """

    name: str
    program: str
    command: str
    is_chrooted: bool
    options: Mapping[str, str]

    @property
    def place(self) -> str:
        """Return where it listens: "submission", "127.0.0.1:10025"."""
        return self.name.rpartition("/")[0]

    @property
    def kind(self) -> str:
        """Return the sort of socket: "inet", "unix", "pass"."""
        return self.name.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class PostfixFacts:
    """One instance of Postfix. `main` is what main.cf sets, as it is written there; `defaults` what holds of ASKED."""

    folder: Path
    main: Mapping[str, str]
    defaults: Mapping[str, str]
    services: tuple[Service, ...]

    @property
    def version(self) -> tuple[int, int]:
        """Return the release: (3, 7)."""
        major, minor = re.findall(r"\d+", self.value("mail_version"))[:2]
        return int(major), int(minor)

    def value(self, name: str, service: Service | None = None) -> str:
        """Return what holds in a service, or in general; empty where nothing does."""
        own = service.options if service else {}
        return own.get(name, self.main.get(name, self.defaults.get(name, "")))

    def setting(self, setting: MainSetting | ServiceSetting) -> str | None:
        """Return what is written where a setting is; None: nothing."""
        if isinstance(setting, MainSetting):
            return self.main.get(setting.name)
        services = (service for service in self.services if service.name == setting.service)
        return next((service.options.get(setting.name) for service in services), None)

    def expanded(self, text: str) -> str:
        """Return a text with main.cf's parameters in the place of their names."""
        for _ in range(MAX_DEPTH):
            found = _REFERENCE.sub(lambda match: self.value(next(filter(None, match.groups()))), text)
            if found == text:
                break
            text = found
        return text

    def meaning(self, restriction: str) -> str:
        """Return a restriction as it is looked at: the name of a class of the operator's is all that is in that class."""
        classes = re.split(r"[\s,]+", self.expanded(self.value("smtpd_restriction_classes")))
        text = self.expanded(restriction)
        return self.expanded(self.value(text)) if text and text in classes else text


def read_postfix(folder: Path | None) -> PostfixFacts | None:
    """Read the instance whose configuration is in `folder`, or the machine's; None: Postfix is not installed.

    Raises ProgramFailed where postconf cannot read it.
    """
    postconf = find_program("postconf")
    if postconf is None:
        return None
    command = [postconf, *(["-c", str(folder)] if folder else [])]
    main, complaints = output_of([*command, "-n"])
    options, more = output_of([*command, "-P"])
    services, _ = output_of([*command, "-M"])
    defaults = parse_settings(output_of([*command, *ASKED])[0])
    # This one's default is made of another's, by an operator that is Postfix's to understand.
    defaults |= parse_settings(output_of([*command, "-x", "smtpd_relay_before_recipient_restrictions"])[0])
    # A parameter that nobody names is not printed, only complained about.
    unused = dict(_UNUSED.findall(complaints + more))
    return PostfixFacts(
        folder=folder or Path(defaults["config_directory"]),
        main={**unused, **parse_settings(main)},
        defaults=defaults,
        services=parse_services(services, parse_settings(options), is_old=defaults["compatibility_level"] == "0"),
    )


def default_folder() -> Path:
    """Return where the machine's own instance has its configuration, without reading that."""
    postconf = find_program("postconf")
    return Path(output_of([postconf, "-d", "-h", "config_directory"])[0].strip() if postconf else "/etc/postfix")


def parse_settings(text: str) -> dict[str, str]:
    r"""Return what postconf printed as `name = value`.

    >>> parse_settings("a = b = c\nd =\n")
    {'a': 'b = c', 'd': ''}
    """
    pairs = (line.partition(" =") for line in text.splitlines())
    return {name: value.strip() for name, separator, value in pairs if separator}


def parse_services(text: str, settings: Mapping[str, str], *, is_old: bool = False) -> tuple[Service, ...]:
    """Return the services that `postconf -M` printed, with what `-P` printed as `service/type/name`.

    >>> parse_services("smtp inet n - y - - smtpd -o a=b", {"smtp/inet/a": "b"})
    (Service(name='smtp/inet', program='smtpd', command='smtpd -o a=b', is_chrooted=True, options={'a': 'b'}),)
    """
    services = []
    for line in text.splitlines():
        words = line.split(None, 8)
        if len(words) < 8:
            continue
        name = f"{words[0]}/{words[1]}"
        own = {key.rpartition("/")[2]: value for key, value in settings.items() if key.rpartition("/")[0] == name}
        services.append(
            Service(name, words[7], " ".join(words[7:]), words[4] == "y" or (is_old and words[4] == "-"), own)
        )
    return tuple(services)
