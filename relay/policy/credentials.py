"""What a credential's name stands for now: host, user name and key. The key may change while the relay runs."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Self

from relay.config import Config, Credential
from relay.core.login import PASSTHROUGH, SUFFIX, Assignment, Login, Target, parse_subaccount, username_for
from relay.core.secret import Secret

REMEMBERED: Final = 10_000  # logins of subaccounts; beyond, they are put together anew
INJECTION: Final = "SMTP_Injection"  # fact sheet 1.1: the user name of every SparkPost account that is not Enterprise

# How applications write a subaccount into a user name: SparkPost's own suffix, or the short forms `name+N` and `N`.
_SUBACCOUNT = re.compile(rf"(?:(?P<base>.+){re.escape(SUFFIX)}|.+\+)?(?P<number>[0-9]+)", re.IGNORECASE)


class Credentials:
    """What the names in an assignment stand for today: hosts, user names and keys."""

    def __init__(
        self,
        target: Target,
        username: str,
        logins: Mapping[str, Login],
        api_url: str | None = None,
        api_urls: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`target`, `username` and `api_url` are the configuration's `upstream`.

        `logins` has each credential's bare login; `api_urls` the HTTP API of those that name their own.
        """
        self._target = target
        self._username = username
        self._bases = frozenset({INJECTION.lower(), username.lower()})
        self._logins = dict(logins)
        self._of_subaccounts: dict[tuple[str, int], Login] = {}
        self._api_url = api_url
        self._api_urls = api_urls

    @classmethod
    def from_config(cls, config: Config) -> Self:
        general = config.upstream
        logins = {
            name: _bare_login(name, credential, Target(general.host, general.ports), general.username)
            for name, credential in config.credentials.items()
        }
        urls = {name: one.upstream.http.url for name, one in config.credentials.items() if one.upstream.http.url}
        return cls(Target(general.host, general.ports), general.username, logins, general.http.url, urls)

    def login_for(self, assignment: Assignment) -> Login:
        """The login that mail of this assignment travels under. Not for passthrough, whose login the session holds."""
        login = self.login_of(assignment.credential, assignment.subaccount)
        assert login is not None
        return login

    def login_of(self, credential: str, subaccount: int | None) -> Login | None:
        """A credential's login for a subaccount; None if there is no such credential."""
        bare = self._logins.get(credential)
        if bare is None or subaccount is None:
            return bare
        known = self._of_subaccounts.get((credential, subaccount))
        if known is None:  # it is asked for several times a message
            if len(self._of_subaccounts) >= REMEMBERED:
                self._of_subaccounts.clear()
            known = bare._replace(username=username_for(bare.username, subaccount))
            self._of_subaccounts[credential, subaccount] = known
        return known

    def api_url(self, login: Login) -> str | None:
        """The HTTP API of the account that a login belongs to; None for a host of its own without a named API."""
        own = self._api_urls.get(login.credential)
        return own or (self._api_url if login.target.host == self._target.host else None)

    def change_key(self, credential: str, key: Secret) -> bool:
        """A credential has another key from now on; False if it is the one it had."""
        bare = self._logins[credential]
        if bare.key == key:
            return False
        self._logins[credential] = bare._replace(key=key)
        self._of_subaccounts.clear()
        return True

    def current(self, login: Login) -> bool:
        """Is this still how its credential logs in? An application's own key is its own business."""
        if login.credential == PASSTHROUGH:
            return True
        bare = self._logins.get(login.credential)
        return bare is not None and (bare.key, bare.target) == (login.key, login.target)

    @property
    def bare_logins(self) -> Mapping[str, Login]:
        """The login of each credential without a subaccount, by name."""
        return self._logins

    def passthrough_login(self, user_name: str, key: Secret) -> Login | None:
        """The login an application means by a user name and a key of its own; None if it is no SparkPost user name.

        Taken are `SMTP_Injection` or the configured user name, in any case, alone or with `:X-MSYS-SUBACCOUNT=N` behind
        it; any name with `+N` behind it; and the bare number `N`. What is presented to SparkPost is always the
        configured user name, and the key says what it may do.
        """
        subaccount = None
        if user_name.lower() not in self._bases:
            found = _SUBACCOUNT.fullmatch(user_name)
            subaccount = parse_subaccount(found["number"]) if found is not None else None
            if found is None or subaccount is None or (found["base"] or INJECTION).lower() not in self._bases:
                return None
        return Login(self._target, username_for(self._username, subaccount), key, PASSTHROUGH) if key else None


def _bare_login(name: str, credential: Credential, target: Target, username: str) -> Login:
    """A credential's login without a subaccount; what it does not say itself is `upstream`'s."""
    own = credential.upstream
    target = Target(own.host or target.host, own.ports or target.ports)
    return Login(target, own.username or username, credential.api_key, name)
