"""`relay-sendmail`, `sparkpost-relay sendmail`, and what is called `sendmail`, `mailq` or `newaliases` by a link."""

import itertools
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping

from relay.addresses import AddressError, key, parse_list
from relay.sendmail import aliases, options, origin, place
from relay.sendmail.bridge import bridge
from relay.sendmail.client import Client, Mail
from relay.sendmail.failure import Failure, complain
from relay.sendmail.message import on_the_wire, read
from relay.sendmail.options import Options

ALIASES_VARIABLE = "RELAY_SENDMAIL_ALIASES"


def main() -> None:
    """The program."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once and without a traceback
    sys.exit(run(sys.argv, os.environ))


def run(argv: list[str], environ: Mapping[str, str]) -> int:
    """Do what was asked for; the exit status."""
    _occupy_standard_descriptors()
    try:
        asked = options.parse(os.path.basename(argv[0]), argv[1:])
        if asked.mode == options.NOTHING_TO_DO:
            return os.EX_OK
        if asked.mode == options.LIST:
            return _list_queue(asked)
        if asked.mode == options.SMTP:
            return bridge(place.find(asked.config, environ))
        return _send(asked, environ)
    except Failure as failure:
        complain(f"{failure}")
        return failure.status


def _occupy_standard_descriptors() -> None:
    """Where the caller has closed one, the relay's connection would get its number, and what is told would be said to
    the relay. What stands in for stdin cannot be read either: a message of nothing would be sent.
    """
    for descriptor, way in ((0, os.O_WRONLY), (1, os.O_RDWR), (2, os.O_RDWR)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, way)  # gets the lowest number that is free: this one


def _send(asked: Options, environ: Mapping[str, str]) -> int:
    if not (asked.recipients or asked.from_header):
        raise Failure(os.EX_USAGE, "nobody is named: give addresses, or -t for those in the header")
    domain = origin.domain(environ)
    if asked.sender is None:
        sender = origin.address_of(origin.login(environ), domain)
    else:
        sender = origin.complete_sender(asked.sender, domain)
    given = _given(asked.recipients)
    header, content = read(0, dot_ends=asked.dot_ends)
    named = given + (header.recipients() if asked.from_header else [])
    if not named:
        raise Failure(
            os.EX_DATAERR, "nobody is named, neither in To, Cc or Bcc nor on the command line. Nothing was sent"
        )
    recipients = _recipients(named, domain, environ)
    name = origin.full_name() if asked.full_name is None else asked.full_name
    header.remove_blind_copies()
    author = sender if sender or header.has(b"from") else origin.address_of(origin.login(environ), domain)
    header.complete(author=author, full_name=name, domain=domain.name)
    head = on_the_wire(bytes(header), line_start=True) + b"\r\n"
    mail = Mail(
        sender,
        recipients,
        len(head) + content.size,
        eight_bit=content.eight_bit or not head.isascii(),
        mail=(f" RET={asked.ret}" if asked.ret else "") + (f" ENVID={asked.envid}" if asked.envid else ""),
        rcpt=f" NOTIFY={asked.notify}" if asked.notify else "",
    )
    with content:
        return _hand_over(asked, environ, mail, lambda: itertools.chain((head,), content.blocks())) if recipients else 0


def _hand_over(asked: Options, environ: Mapping[str, str], mail: Mail, blocks: Callable[[], Iterable[bytes]]) -> int:
    with Client(place.find(asked.config, environ), verbose=asked.verbose) as client:
        client.greet(_greeting())
        return client.send(mail, blocks)


def _given(words: list[str]) -> list[str]:
    """The recipients of the command line; a word may be a list."""
    try:
        return [address for word in words for address in parse_list(word)]
    except AddressError as error:
        raise Failure(os.EX_USAGE, f"{error}. Nothing was sent") from None


def _recipients(addresses: list[str], domain: origin.Domain, environ: Mapping[str, str]) -> list[str]:
    """Each once, complete, in the order of their first naming; none if aliases lead to /dev/null alone.

    Raises Failure for one that no mail can reach.
    """
    named = environ.get(ALIASES_VARIABLE)
    path = named or aliases.USUAL_PLACE
    local = any(origin.is_local(address) for address in addresses)
    known = aliases.Aliases(path, named=bool(named)) if local else None
    resolved: dict[str, str] = {}
    for address in addresses:
        meant = known.resolve(address) if known is not None and origin.is_local(address) else [address]
        for one in meant:
            if origin.is_local(one) and not domain.real:
                text = (
                    f"{one} has no domain, no alias in {path}, and this host has no mail domain to add "
                    f"({domain.name!r} is only a host's name): write a whole address (cron: MAILTO), an alias, "
                    f"or the domain into {origin.MAILNAME} or ${origin.DOMAIN_VARIABLE}. Nothing was sent"
                )
                raise Failure(os.EX_NOUSER, text)
            complete = origin.complete(one, domain)
            resolved.setdefault(key(complete), complete)
    return list(resolved.values())


def _greeting() -> str:
    """What to say in EHLO; the relay writes it into Received."""
    name = socket.gethostname()
    return name if origin.is_domain(name) else "localhost"


def _list_queue(asked: Options) -> int:
    from relay.queue_cli import queue

    config = ["--config", asked.config] if asked.config else []
    return int(queue(args=["list", *config], prog_name="mailq", standalone_mode=False) or os.EX_OK)
