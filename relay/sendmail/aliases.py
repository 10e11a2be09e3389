"""The aliases file, for recipients without a domain: cron writes to `root`, and aliases say who that is.

Of what aliases(5) can say, addresses are used. Nothing is run and nothing is written to: a program, a file or an
`:include:` is an error that names itself, but for /dev/null, which swallows mail here too.
"""

import os
import re

from relay.addresses import AddressError, parse_list
from relay.sendmail.failure import Failure

USUAL_PLACE = "/etc/aliases"
_ENTRY = re.compile(
    r'^(?:"(?P<quoted>[^"\n]+)"|(?P<name>[^\s:#"]+))[ \t]*:(?P<value>[^\n]*(?:\n[ \t][^\n]*)*)', re.MULTILINE
)
_NO_ADDRESS = re.compile(r'^"?(?:\||/|:include:)')


class Aliases:
    """Who is meant by a name, by the aliases file as it is now; there is no database to be rebuilt.

    A file that somebody `named` must be readable: raises Failure.
    """

    def __init__(self, path: str, *, named: bool = False) -> None:
        self._path = path
        self._entries: dict[str, str] = {}
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = re.sub(r"^[ \t]*#.*\n?", "", file.read(), flags=re.MULTILINE)
        except OSError as error:
            if named:
                raise Failure(os.EX_CONFIG, f"{path}: the aliases cannot be read: {error.strerror}") from None
            return  # most hosts have none
        for entry in _ENTRY.finditer(text):
            self._entries[(entry["quoted"] or entry["name"]).lower()] = entry["value"]

    def resolve(self, name: str) -> list[str]:
        """The addresses for a name, the name itself if it has no alias; raises Failure for what is not an address."""
        return self._resolve(name, frozenset())

    def _resolve(self, name: str, passed: frozenset[str]) -> list[str]:
        known = name.lower()
        if "@" in name or known in passed or known not in self._entries:
            return [name]
        found: list[str] = []
        for target in self._targets(name, self._entries[known]):
            found += self._resolve(target, passed | {known})
        return found

    def _targets(self, name: str, value: str) -> list[str]:
        parts = [part.strip() for part in value.split(",")]
        special = [part for part in parts if _NO_ADDRESS.match(part)]
        for part in special:
            if part != "/dev/null":
                text = f"{self._path}: the alias {name} leads to {part!r}; only addresses can be used here"
                raise Failure(os.EX_CONFIG, text)
        try:
            found = parse_list(", ".join(part.lstrip("\\") for part in parts if part not in special))
        except AddressError as error:
            raise Failure(os.EX_CONFIG, f"{self._path}: the alias {name}: {error}") from None
        if not (found or special):
            text = f"{self._path}: the alias {name} leads to nobody; /dev/null is what swallows mail"
            raise Failure(os.EX_CONFIG, text)
        return found
