"""mailward.toml - the configuration of Mailward

SYNOPSIS
    /etc/mailward/mailward.toml
    /etc/mailward/conf.d/*.toml

DESCRIPTION
    All that Mailward's daemons and its command `mailward`(1) are told. It is TOML (https://toml.io). Everything has a default
    that is safe; without a file, or with an empty one, all of them hold. A daemon reads what stands at the top, [dns], and
    its own table; other tables may be missing.

    First mailward.toml is read, then all of conf.d/*.toml beside it, in the order of their names. What a later file says of a
    setting holds; lists of tables, [[dkim-sign.domain]] and [[policyd.limit]], grow. `mailward keys` and `mailward setup`
    write into conf.d, so that mailward.toml stays the operator's.

    An unknown setting, a value that does not fit and a file that cannot be read are mistakes. Each daemon tells every one
    of them with its file and what was expected, with --check, and then does not start, or at a reload stays with what
    it had.

VALUES
    time
        A number and its unit: "500ms", "2s", "5m", "1h", "36d", "2w".
    rate
        So many in a time: "100/1h"; of octets also "50MB/1d".
    address
        "127.0.0.1:9461" or "[::1]:9461"; a socket is "unix:/path" or "inet:127.0.0.1:8891".
    networks
        A list such as ["192.0.2.0/24", "2001:db8::1"].
    path
        A file with its whole path.

FILES
    /etc/mailward/mailward.toml
        The configuration; another is given with --config, and its conf.d stands beside it.
    /etc/mailward/keys
        The private keys, which the account mailward-sign alone reads.
    /var/lib/mailward
        The state.
"""
