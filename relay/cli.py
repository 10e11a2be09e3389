"""The command line: reads arguments, calls the room that does the work, prints, and returns an exit status.

Statuses: 0 fine, 1 something was found or refused, 2 wrong use, and of sysexits(3) 64 wrong use that the room itself
finds, 69 a port, a spool or the room on its disk is taken, 78 bad configuration. Every command imports what it needs
when it runs, so that the small ones start quickly.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from relay import __version__, is_compiled, streams
from relay.options import EX_CONFIG, EX_UNAVAILABLE, ConfigOption, fail, load_config, load_places
from relay.queue_cli import queue

T = TypeVar("T")

cli = typer.Typer(
    name="sparkpost-relay",
    help="A local SMTP relay for SparkPost: applications talk to localhost, SparkPost gets their mail as it must be.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cli.add_typer(queue, name="queue")


def main() -> None:
    """The `sparkpost-relay` program."""
    streams.run(cli)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """On uvloop, where the relay takes a quarter less CPU time a message than on asyncio's own loop (benchmarks)."""
    import uvloop

    return uvloop.run(work)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"sparkpost-relay {__version__}{' (compiled)' if is_compiled() else ''}")
        raise typer.Exit


@cli.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def _import_structlog() -> None:
    """Without rich, which it takes along where it can: 9 MB for tracebacks in colour, which the relay does not draw."""
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # that is: it cannot be imported
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]


@cli.command()
def serve(config: ConfigOption = None) -> None:
    """Run the relay until SIGTERM, SIGINT or SIGHUP.

    Exit 0 after messages in hand have been answered, 78 on bad configuration or a spool that cannot be used, 69 if a
    listener cannot bind, another relay has the spool, or its disk is full.
    """
    _import_structlog()
    from relay.admin.sockets import AdminUnavailable
    from relay.ingress.body import scratch_problem
    from relay.ingress.doors import BindError
    from relay.serve import run
    from relay.spool.database import SpoolFull, SpoolUnusable
    from relay.spool.lock import SpoolInUse

    loaded = load_config(config)
    if (problem := scratch_problem()) is not None:
        streams.tell(f"warning: {problem}")
    try:
        status = _run(run(loaded))
    except (AdminUnavailable, BindError, SpoolFull, SpoolInUse) as error:
        fail(str(error), EX_UNAVAILABLE)
    except SpoolUnusable as error:
        fail(str(error), EX_CONFIG)
    raise typer.Exit(status)


@cli.command()
def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave relay and sandbox running until Ctrl-C, and print their addresses.")
    ] = False,
) -> None:
    """Show the whole way: a client, this relay, and a SparkPost that lives on localhost.

    Needs no account, no configuration and no network. Exit 0 if the message arrived under the right identity.
    """
    from relay.demo import demonstrate

    raise typer.Exit(_run(demonstrate(keep=keep)))


@cli.command()
def sandbox(
    smtp: Annotated[
        list[str] | None,
        typer.Option(
            "--smtp",
            metavar="HOST:PORT[=MODE]",
            help="Where to listen; may repeat. MODE makes a port misbehave (silent, no-starttls, wrong-name, ...).",
        ),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(
            "--http",
            metavar="HOST:PORT[=MODE]",
            help="Where to serve the HTTPS API too. MODE makes it misbehave (403, 420, 503, no-response, ...).",
        ),
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option("--api-key", metavar="KEY", help="A key that is accepted; may repeat. Default: one made up."),
    ] = None,
    sending_domain: Annotated[
        list[str] | None,
        typer.Option(
            "--sending-domain",
            metavar="DOMAIN",
            help="A domain that From may have, others are refused; may repeat. Default: every domain.",
        ),
    ] = None,
    tls_dir: Annotated[
        Path | None,
        typer.Option(
            "--tls-dir", metavar="DIR", help="Where ca.pem and the certificates are kept. Default: a temporary folder."
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option("--store", metavar="DIR", help="Write each accepted message as one .eml and one .json."),
    ] = None,
) -> None:
    """Run the SparkPost stand-in alone: for trying a configuration, and for the tests of your own applications.

    It demands STARTTLS and AUTH as SparkPost does, answers in SparkPost's words, and takes faults by magic address
    (tempfail@, 550-5.7.1@, disconnect-after-dot@, ...; docs/sandbox.md has them all). Point a relay at it with
    upstream.host, ports and tls.ca_file.
    """
    from relay.sandbox.command import run_sandbox

    running = run_sandbox(
        smtp or ["127.0.0.1:2587"],
        http,
        api_keys=api_key or [],
        sending_domains=sending_domain or None,
        tls_dir=tls_dir,
        store=store,
    )
    raise typer.Exit(asyncio.run(running))


@cli.command("check-config")
def check_config(config: ConfigOption = None) -> None:
    """Check the configuration: every problem at once, each with file, line and key.

    Exit 78 if there is one; otherwise the effective configuration is printed, secrets redacted.
    """
    from relay.config import dump

    print(dump(load_config(config)), end="")


@cli.command()
def explain(
    config: ConfigOption = None,
    login: Annotated[
        str | None, typer.Option(metavar="USER", help="The user name the client has logged in with.")
    ] = None,
    mail_from: Annotated[
        str, typer.Option("--from", metavar="ADDRESS", help="The reverse-path (MAIL FROM); <> is null.")
    ] = "",
    client: Annotated[str | None, typer.Option(metavar="IP", help="The client's address. Default: 127.0.0.1.")] = None,
    uid: Annotated[int | None, typer.Option(metavar="N", help="The client's user id, on a Unix socket.")] = None,
    listener: Annotated[
        str | None, typer.Option(metavar="NAME", help="The listener it comes in by. Default: the first.")
    ] = None,
    header_from: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The From header; checked against the identity's senders.")
    ] = None,
) -> None:
    """Say which identity, credential and subaccount a message would get, which rule decided, and why others did not.

    Exit 0 if the message would pass, 1 if it would be refused.
    """
    from relay.explain import explain as explained

    text, passes = explained(
        load_config(config).config,
        login=login,
        mail_from=mail_from,
        client=client,
        listener=listener,
        header_from=header_from,
        uid=uid,
    )
    print(text)
    raise typer.Exit(0 if passes else 1)


@cli.command()
def doctor(config: ConfigOption = None) -> None:
    """Try the whole way to SparkPost without sending mail, and say what is wrong and what would help.

    DNS, every port, every address family, banner, STARTTLS, certificate, AUTH for each credential, latency. A port
    that stays silent is waited for ten seconds, or less if upstream.timeouts say so.
    Exit 0 if mail would flow with every credential, 1 if not.
    """
    from relay.doctor import examine

    raise typer.Exit(_run(examine(load_config(config).config)))


@cli.command()
def send(
    to: Annotated[str, typer.Option("--to", metavar="ADDRESS", help="Who gets the test message.")],
    mail_from: Annotated[
        str | None,
        typer.Option("--from", metavar="ADDRESS", help="Sender: reverse-path and From header. Default: the recipient."),
    ] = None,
    via: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="The relay; unix:/path for a Unix socket.")
    ] = "localhost:2525",
    login: Annotated[str | None, typer.Option(metavar="USER", help="Log in; the password is asked for.")] = None,
) -> None:
    """Send one test message through a running relay and show what it answers. Exit 0 if it was accepted, 1 if not.

    A password leaves this host only under TLS with a certificate that verifies; where a CA of your own has issued that,
    SSL_CERT_FILE names it.
    """
    from relay.send import send_test_message

    password = _password(lambda: typer.prompt("password", hide_input=True)) if login is not None else None
    raise typer.Exit(send_test_message(to=to, mail_from=mail_from or to, via=via, login=login, password=password))


@cli.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    options_metavar="[OPTIONS OF SENDMAIL]",
)
def sendmail(context: typer.Context) -> None:
    """Hand a message on stdin to the running relay, as /usr/sbin/sendmail does; also installed as relay-sendmail.

    Its options and exit statuses are those of sendmail(8): docs/sendmail.md.
    """
    from relay.sendmail.command import run

    raise typer.Exit(run(["sendmail", *context.args], os.environ))


@cli.command()
def health(config: ConfigOption = None) -> None:
    """Ask the running relay whether it takes mail, as a container runtime does.

    Exit 0 if it does, 1 if not, with the reason.
    """
    from relay.admin.probe import ask

    ready, text = ask(load_places(config), os.environ)
    print(text)
    raise typer.Exit(0 if ready else 1)


@cli.command("hash-password")
def hash_password() -> None:
    """Print the argon2id hash of a password, for `identities[].password`.

    The password is asked for twice on a terminal, and is one line of stdin otherwise.
    """
    from relay.ingress.auth import hash_password as hashed

    if sys.stdin.isatty():
        password = _password(lambda: typer.prompt("password", hide_input=True, confirmation_prompt=True))
    else:
        password = _password(lambda: sys.stdin.readline().rstrip("\r\n"))
    if not password:
        fail("an empty password protects nothing: give one on stdin", 1)
    print(hashed(password))


def _password(read: Callable[[], str]) -> str:
    """What is read, if it is text: by the locale, octets of another encoding are an error or come as surrogates."""
    try:
        password = read()
        password.encode()
    except UnicodeError:
        fail("the password is not text in UTF-8: convert it, or choose another", 1)
    return password
