"""What a sandbox demands of its clients: the keys it knows, its limits and its checks, with SparkPost's own values."""

import re
import secrets
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Final

MEBIBYTE: Final = 1 << 20
MAX_SUBACCOUNT: Final = 2**31 - 1

_SUBACCOUNT = re.compile(r":X-MSYS-SUBACCOUNT=([1-9]\d{0,9})")


@dataclass(frozen=True, slots=True)
class Login:
    """Who a connection has proved to be; `subaccount` None is the primary account."""

    user: str
    api_key: str = field(repr=False)
    subaccount: int | None


@dataclass(kw_only=True, eq=False)
class Rules:
    """The rules may be changed while a sandbox runs; the next command sees the change.

    api_keys: each key with the subaccount it belongs to, or None for a key of the primary account. None given: one is
        made.
    smtp_only_keys: keys without the permission Transmissions: Read/Write, which are answered 403 over HTTP.
    username: what a login begins with; accounts on Enterprise hosts have another.
    sending_domains: the domains a From header may have, or None for any.
    message_size: in octets, un-stuffed. Whether SparkPost's 20 MB are 20·10⁶ or 20·2²⁰ is not documented.
    messages_per_connection: the MAIL after so many messages is refused with 421; None for no limit.
    recipients_per_message: the RCPT after so many is refused with 452; None, as with SparkPost, for no limit.
    idle_timeout: seconds without a word from the client.
    max_connections: over all ports; the next one is greeted with 421.
    check_line_ends, check_line_length: refuse lone CR or LF, and body lines of more than 998 octets.
    newer_texts: the AUTH replies of newer engines.
    extensions: further EHLO lines under TLS, such as "SIZE 20971520".
    replies: fixed octets instead of the reply to a verb, BANNER or DOT. A refusal replaces the command, anything else
        only its reply.
    """

    api_keys: Mapping[str, int | None] = field(default_factory=dict, repr=False)
    smtp_only_keys: Collection[str] = field(default=(), repr=False)
    username: str = "SMTP_Injection"
    sending_domains: Collection[str] | None = None
    message_size: int = 20 * MEBIBYTE
    messages_per_connection: int | None = 100
    recipients_per_message: int | None = None
    idle_timeout: float = 60.0
    max_connections: int = 10
    check_line_ends: bool = True
    check_line_length: bool = True
    newer_texts: bool = False
    extensions: Sequence[str] = ()
    replies: MutableMapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.api_keys = dict(self.api_keys) or {secrets.token_hex(20): None}

    def login(self, user: str, api_key: str) -> Login | None:
        """The login that user name and key prove, or None.

        The subaccount is that of the key, whatever the user name says; a key of the primary account may name one
        (fact sheet 1.1). User names are case-sensitive.
        """
        if api_key not in self.api_keys or not user.startswith(self.username):
            return None
        suffix = user.removeprefix(self.username)
        match = _SUBACCOUNT.fullmatch(suffix)
        if suffix and (match is None or int(match[1]) > MAX_SUBACCOUNT):
            return None
        named = int(match[1]) if match else None
        bound = self.api_keys[api_key]
        return Login(user, api_key, named if bound is None else bound)

    def http_login(self, api_key: str, named: int | None) -> Login | None:
        """The login that a request proves by its key alone, for the subaccount it names; None if the key is unknown."""
        if api_key not in self.api_keys:
            return None
        bound = self.api_keys[api_key]
        return Login("", api_key, named if bound is None else bound)
