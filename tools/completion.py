"""Write the shells' completion of the `mailward` command, as click makes it.

    python3 -m tools.completion FOLDER

writes `mailward` (bash), `_mailward` (zsh) and `mailward.fish`, the names the shells look for.
"""

from __future__ import annotations

import sys
from pathlib import Path

from click.shell_completion import get_completion_class

from postmaster.__main__ import main as command

# click before 8.1.4 only defines the function where zsh loads the file, at the first Tab: nothing is completed until the second.
OLD_ZSH_END = "compdef _mailward_completion mailward;"
ZSH_END = """if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _mailward_completion "$@"
else
    compdef _mailward_completion mailward
fi"""

# fish takes a description to its first comma.
FISH_SPLIT = 'string split "," $completion'
FISH_SPLIT_ONCE = 'string split --max 1 "," $completion'

FILES = {"bash": "mailward", "zsh": "_mailward", "fish": "mailward.fish"}


def main(folder: Path) -> None:
    """Write a file for each shell."""
    for shell, name in FILES.items():
        kind = get_completion_class(shell)
        assert kind is not None, shell
        made = kind(command, {}, "mailward", "_MAILWARD_COMPLETE")
        text = made.source_template % made.source_vars()
        if shell == "zsh" and "loadautofunc" not in text:
            text = text.replace(OLD_ZSH_END, ZSH_END)
        text = text.replace(FISH_SPLIT, FISH_SPLIT_ONCE)
        folder.joinpath(name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python3 -m tools.completion FOLDER")
    main(Path(sys.argv[1]))
