"""What a run says of the machine that it was made on: home folders, user and host, left out before it is given away."""

import getpass
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FREE_TEXTS = (
    *("command", "platform", "decided", "title", "weights", "weights_note", "warnings", "says", "remedy", "reason"),
    *("conditions", "prepared", "tried"),
)
"""Keys of a manifest whose texts no number and no name depends on."""

_HOMES = re.compile(r"(?:/home|/Users)/[^/\s\"']+|/root(?![^/\s\"'])|[A-Za-z]:\\Users\\[^\\\s\"']+")
_LEAST = 3
"""Letters of a name that is looked for; shorter ones are parts of too many words."""


def names_of_this_machine() -> dict[str, str]:
    """What is left out -> what stands in its place: the home folder, the user, the host."""
    found = {str(Path.home()): "~"}
    try:
        users = {getpass.getuser(), *(os.environ.get(key, "") for key in ("USER", "LOGNAME", "USERNAME"))}
    except (KeyError, OSError):  # a container without an entry for the user
        users = set()
    host = socket.gethostname()
    found |= dict.fromkeys(users, "user") | dict.fromkeys((host, host.partition(".")[0]), "host")
    return {name: instead for name, instead in found.items() if len(name) >= _LEAST and name != "localhost"}


def cleaned(text: str, names: Mapping[str, str]) -> str:
    """The text without home folders, whoever's they are, and without these names where they are whole words."""
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", names[name], text)
    return _HOMES.sub("~", text)


def cleaned_texts(content: Any, names: Mapping[str, str], free: bool = False) -> Any:
    """JSON whose `FREE_TEXTS` are cleaned; all other texts are as they were."""
    if isinstance(content, dict):
        return {key: cleaned_texts(value, names, free or key in FREE_TEXTS) for key, value in content.items()}
    if isinstance(content, list):
        return [cleaned_texts(value, names, free) for value in content]
    return cleaned(content, names) if free and isinstance(content, str) else content
