"""`sparkpost-relay explain`: what would be decided about a message, and why, without sending it.

It asks the same objects that a running relay asks, so it cannot disagree with what happens. A login given here counts
as proved: the password is not asked for.
"""

import ipaddress
import json
from collections.abc import Iterator
from dataclasses import replace

from relay.config import Config, IPAddress, Listener, TcpAddress, UnixAddress
from relay.core import smtp_api
from relay.core.envelope import Address, DomainMissing, Home, PathError, ReversePath
from relay.core.login import PASSTHROUGH, Login
from relay.core.reply import AUTH_BAD_USER, Reply
from relay.core.secret import Secret
from relay.ingress.auth import is_user
from relay.policy import admission
from relay.policy.credentials import Credentials
from relay.policy.identity import Client, Decision, Identities, sender_allowed
from relay.policy.wishes import Wishes


def explain(
    config: Config,
    *,
    login: str | None,
    mail_from: str,
    client: str | None,
    listener: str | None,
    header_from: str | None,
    uid: int | None = None,
) -> tuple[str, bool]:
    """The explanation, some lines long, and whether the message would pass. Bad arguments are explained as well.

    `client` is an IP address, 127.0.0.1 if none is given; `uid` a user on a Unix socket.
    """
    entry = next((one for one in config.listeners if listener in {None, one.name}), None)
    if entry is None:
        known = ", ".join(one.name for one in config.listeners)
        return f"--listener {listener}: there is none of that name; there is: {known}", False
    try:
        who = _who(entry, client, uid)
    except ValueError as error:
        return str(error), False
    try:
        reverse_path = ReversePath(None if mail_from in {"", "<>"} else _address(mail_from.strip("<>"), entry))
        author = _address(header_from, entry) if header_from is not None else None
    except PathError as error:
        return f"bad address: {error}", False
    said = f"logged in as {login}" if login is not None else "not logged in"
    lines = [f"message     MAIL FROM:<{reverse_path}> from {_in_words(who)} on listener {entry.name}, {said}"]
    refusal = _refused_at_the_door(entry, who.address, login)
    if refusal is not None:
        return "\n".join([*lines, f"refused     {refusal}"]), False
    passes = _decide(config, entry, who, login, reverse_path, author, lines)
    return "\n".join(lines), passes


def _address(text: str, listener: Listener) -> Address:
    """An address as the listener understands it; raises PathError."""
    try:
        return Address.parse(text)
    except DomainMissing:
        address = None if listener.origin is None else Home(listener.origin).find(text)
        if address is None:
            raise
        return address


def _who(listener: Listener, client: str | None, uid: int | None) -> Client:
    """The client as far as its connection tells; raises ValueError for what cannot be."""
    if uid is not None and isinstance(listener.address, TcpAddress):
        raise ValueError(f"--uid {uid}: listener {listener.name} is on TCP, where nobody's user id is known")
    local = uid is not None or isinstance(listener.address, UnixAddress)
    if local and client is not None:
        raise ValueError(f"--client {client}: who comes by a Unix socket has no address; say who it is with --uid")
    if local:
        return Client(listener.name, None, uid)
    try:
        address = ipaddress.ip_address(client or "127.0.0.1")
    except ValueError:
        raise ValueError(f"--client {client}: an IP address is expected") from None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return Client(listener.name, mapped or address)


def _in_words(who: Client) -> str:
    if who.address is not None:
        return str(who.address)
    return "a user who is not named (--uid)" if who.uid is None else f"uid {who.uid}"


def _refused_at_the_door(listener: Listener, address: IPAddress | None, login: str | None) -> str | None:
    if address is not None and not any(address in network for network in listener.networks):
        return f"at connect: {address} is in none of {', '.join(map(str, listener.networks))}"
    if login is not None and listener.auth == "none":
        return f"at AUTH: listener {listener.name} has auth: none"
    if login is not None and not is_user(login):
        return f"at AUTH: {AUTH_BAD_USER}"
    if login is None and listener.auth in {"required", "passthrough"}:
        return f"at MAIL: listener {listener.name} has auth: {listener.auth}; say who logs in with --login"
    return None


def _decide(
    config: Config,
    listener: Listener,
    who: Client,
    login: str | None,
    reverse_path: ReversePath,
    author: Address | None,
    lines: list[str],
) -> bool:
    """Add the rules, the decision and what follows from it to `lines`; True if the message passes."""
    identities, credentials = Identities.from_config(config), Credentials.from_config(config)
    passthrough = None
    if listener.auth == "passthrough" and login is not None:
        passthrough = credentials.passthrough_login(login, Secret("not given"))
        if passthrough is None:
            lines.append(f"refused     at AUTH: {login} is no SparkPost user name")
            return False
        login = passthrough.username
    proved = frozenset(identities.passwords(login)) if login is not None and passthrough is None else frozenset()
    if login is not None and passthrough is None and not proved:
        lines.append(f"refused     at AUTH: no identity has the login {login}")
        return False
    client = replace(who, login=login, proved=proved, passthrough=passthrough is not None)
    lines += [f"rule        {considered}" for considered in identities.consider(client, reverse_path)]
    decision = identities.choose(client, reverse_path)
    if isinstance(decision, Reply):
        lines.append(f"refused     at MAIL: {decision}")
        return False
    lines += _on_whose_behalf(decision, passthrough or credentials.login_for(decision.assignment))
    refusal = admission.reverse_path(decision, reverse_path)
    if refusal is not None:
        lines.append(f"refused     at MAIL: {refusal}")
        return False
    if author is not None and not sender_allowed(decision, author):
        lines.append(f"refused     after the content: header From {author} is not among the identity's senders")
        return False
    lines.append("passes      SparkPost has the last word about the From domain")
    return True


def _on_whose_behalf(decision: Decision, login: Login) -> Iterator[str]:
    """What follows from a decision: as whom the message goes to SparkPost, and with which wishes."""
    subaccount = decision.assignment.subaccount
    yield f"identity    {decision.assignment.identity}"
    yield f"credential  {_credential_words(decision)}"
    yield f"subaccount  {'none (the primary account)' if subaccount is None else subaccount}"
    ports = ", then ".join(map(str, login.target.ports))
    yield f"SparkPost   AUTH as {login.username} at {login.target.host}, port {ports}"
    yield from _wishes(decision.wishes)


def _wishes(wishes: Wishes) -> Iterator[str]:
    if wishes.own:
        yield f"X-MSYS-API  {json.dumps(wishes.own)}"
    accepted = ", ".join(name for name in smtp_api.ALL if name in wishes.accept)
    yield f"accepts     {accepted or 'nothing'} in the application's own X-MSYS-API"


def _credential_words(decision: Decision) -> str:
    name = decision.assignment.credential
    return f"{name} (the application's own key)" if name == PASSTHROUGH else name
