"""`relay-sendmail` between real programs and a real relay: what was piped in is what SparkPost gets, octet by octet."""

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from relay.app import Relay
from relay.sandbox import Accepted, Sandbox
from tests.support.environment import clean
from tests.support.program import free_port
from tests.support.running import KEY, port_of, relay_to, sandbox_with
from tests.support.serving import run, serving, write_config

PROGRAM = Path(sys.executable).with_name("relay-sendmail")
HEADER = b"From: a@example.com\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n"
MESSAGE = HEADER + b"To: b@example.net\r\nSubject: test\r\n\r\nhello\r\n"

# What cron calls, and whom it names as the author: Debian's, and that of Fedora and RHEL.
CRONS = [
    (["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"], b"root%b (Cron Daemon)"),
    (["-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root"], b'"(Cron Daemon)" <root%b>'),
]
CRON_TEXT = (
    b"From: %b\nTo: root%b\nSubject: Cron <root@web1> backup\nMIME-Version: 1.0\n"
    b"Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\nX-Cron-Env: <SHELL=/bin/sh>\n"
    b"\nfertig: 100 \xe2\x82\xac\n.\n10%%\r20%%\r\n"
)


@dataclass(frozen=True)
class Ended:
    """How the program ended, and what it said."""

    status: int
    out: bytes
    err: str


@dataclass(frozen=True)
class Desk:
    """A stand-in for SparkPost, a relay in front of it, and the environment in which a program finds the relay."""

    sandbox: Sandbox
    relay: Relay
    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        return environment(f"127.0.0.1:{port_of(self.relay)}", HOME=str(self.folder))

    @property
    def accepted(self) -> Accepted:
        """The only message."""
        (one,) = self.sandbox.accepted
        return one

    @property
    def content(self) -> bytes:
        """The only message, without the relay's own Received field."""
        received = re.match(rb"Received: [^\n]*\n(?:[ \t][^\n]*\n)*", self.accepted.content)
        assert received is not None
        return self.accepted.content[received.end() :]

    async def sendmail(self, *arguments: str, text: bytes = b"", **environ: str) -> Ended:
        """`relay-sendmail` with these arguments and this on stdin."""
        return await program([str(PROGRAM), *arguments], text, self.environ | environ)


def environment(place: str, **more: str) -> dict[str, str]:
    """Nothing of this host decides: neither its name nor its aliases."""
    return clean(RELAY_SENDMAIL=place, RELAY_SENDMAIL_DOMAIN="example.com", RELAY_SENDMAIL_ALIASES=os.devnull, **more)


async def program(command: list[str], text: bytes, environ: dict[str, str], **options) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environ,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        **options,
    )
    out, err = await asyncio.wait_for(process.communicate(text), 40)
    assert process.returncode is not None
    return Ended(process.returncode, out, err.decode("utf-8", "replace"))


@contextlib.asynccontextmanager
async def desk_in(folder: Path, **sections) -> AsyncIterator[Desk]:
    async with sandbox_with(folder / "tls") as sandbox, relay_to(sandbox, **sections) as relay:
        yield Desk(sandbox, relay, folder)


def installed(name: str, package: str) -> str:
    """Where a real client is, or a skip that says how to get it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian package {package})")
    return path


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b"\r\r\n"], ids=["LF", "CRLF", "CR", "CR CR LF"])
async def test_octet_by_octet(tmp_path, end):
    """Every line end comes out as CRLF, dots are dots, 8-bit octets pass, blind copies are sent and not told."""
    body = [b"", b".", b"..", b".x", "Grüße".encode(), b"trailing space ", b"", b"\x01\x7f end"]
    mime = [b"MIME-Version: 1.0", b"Content-Type: text/plain; charset=utf-8", b"Content-Transfer-Encoding: 8bit"]
    header = [*HEADER.split(b"\r\n")[:3], *mime, b"To: B <b@example.net>", b"Subject: x", b" folded"]
    blind = [b"Bcc: c@example.net,", b"\td@example.net"]
    async with desk_in(tmp_path) as desk:
        ended = await desk.sendmail(
            "-t", "-i", "-fa@example.com", text=end.join([*header[:5], *blind, *header[5:], *body])
        )

    assert ended == Ended(0, b"", "")
    assert desk.content == b"\r\n".join([*header, *body, b""])
    assert desk.accepted.reverse_path == "a@example.com"
    assert desk.accepted.recipients == ("c@example.net", "d@example.net", "b@example.net")


async def test_text_without_a_header(tmp_path):
    """`echo text | sendmail address`: header fields are supplied, and the empty line."""
    async with desk_in(tmp_path) as desk:
        ended = await desk.sendmail("-F", "Jürgen Doe", "-f", "a@example.com", "b@example.net", text=b"just text\n")

    assert ended == Ended(0, b"", "")
    header, _, content = desk.content.partition(b"\r\n\r\n")
    assert content == b"just text\r\n"
    assert [line.partition(b":")[0] for line in header.split(b"\r\n")] == [b"From", b"Date", b"Message-ID"]
    assert header.startswith(b"From: =?utf-8?B?SsO8cmdlbiBEb2U=?= <a@example.com>\r\n")


async def test_recipients_of_header_and_command_line_together(tmp_path):
    """Each once, whatever the case of its domain."""
    text = b"To: b@example.net, (x@y.z) C <c@EXAMPLE.net>\nCc: friends: d@example.net;\n\nx\n"
    async with desk_in(tmp_path) as desk:
        ended = await desk.sendmail("-t", "c@example.net", "--", "e@example.net", text=text)

    assert ended.status == 0
    assert desk.accepted.recipients == ("c@example.net", "e@example.net", "b@example.net", "d@example.net")


@pytest.mark.parametrize(("arguments", "author"), CRONS, ids=["Debian", "Fedora"])
async def test_cron(tmp_path, arguments, author):
    """Its very command line and its very words; root is who the aliases say, and in the header has the host's domain.

    Without that, no identity that lists its senders lets it pass, and SparkPost knows no domain in its From.
    """
    (tmp_path / "aliases").write_text("root: ops@example.net\n")
    text = CRON_TEXT % (author % b"", b"")
    async with desk_in(tmp_path, identities=[{"name": "default", "match": {}, "senders": ["*@example.com"]}]) as desk:
        ended = await desk.sendmail(*arguments, text=text, RELAY_SENDMAIL_ALIASES=str(tmp_path / "aliases"))

    assert ended == Ended(0, b"", "")
    assert desk.accepted.recipients == ("ops@example.net",)
    assert desk.accepted.reverse_path.endswith("@example.com")
    header, _, content = desk.content.partition(b"\r\n\r\n")
    whole = CRON_TEXT % (author % b"@example.com", b"@example.com")
    assert header.startswith(whole.partition(b"\n\n")[0].replace(b"\n", b"\r\n") + b"\r\nDate: ")
    assert content == "fertig: 100 €\r\n.\r\n10%\r\n20%\r\n".encode()


async def test_php_mail(tmp_path):
    """As `sendmail_path`, with headers and a sender of the script's own."""
    php = installed("php", "php-cli")
    script = (
        "exit(mail('B <b@example.net>', 'Grüße', \"line\\n.\\nend\\n\","
        " \"From: a@example.com\\r\\nBcc: c@example.net\", '-fbounces@example.com') ? 0 : 1);"
    )
    async with desk_in(tmp_path) as desk:
        ended = await program([php, "-n", "-d", f"sendmail_path={PROGRAM} -t -i", "-r", script], b"", desk.environ)

    assert ended == Ended(0, b"", "")
    assert desk.accepted.reverse_path == "bounces@example.com"
    assert desk.accepted.recipients == ("b@example.net", "c@example.net")
    header, _, content = desk.content.partition(b"\r\n\r\n")
    assert header.startswith("To: B <b@example.net>\r\nSubject: Grüße\r\nFrom: a@example.com\r\nDate: ".encode())
    assert content == b"line\r\n.\r\nend\r\n\r\n"


async def test_php_mail_hears_of_a_refusal(tmp_path):
    """`mail()` is false, and the web server's log has the relay's reply."""
    php = installed("php", "php-cli")
    identities = [{"name": "shop", "match": {}, "senders": ["*@shop.example"]}]
    async with desk_in(tmp_path, identities=identities) as desk:
        ended = await program(
            [php, "-n", "-d", f"sendmail_path={PROGRAM} -t -i", "-r", "exit(mail('b@example.net', 'x', 'x') ? 0 : 1);"],
            b"",
            desk.environ,
        )

    assert ended.status == 1
    assert "550 5.7.1" in ended.err


async def test_mail(tmp_path):
    """bsd-mailx, by its `sendmail` variable."""
    mail = installed("bsd-mailx", "bsd-mailx")
    (tmp_path / "mailrc").write_text(f"set sendmail={PROGRAM}\n")
    async with desk_in(tmp_path) as desk:
        environ = desk.environ | {"MAILRC": str(tmp_path / "mailrc")}
        command = [mail, "-s", "backup", "-b", "c@example.net", "b@example.net"]
        ended = await program(command, b"hello\n.x\n", environ)
        await asyncio.wait_for(desk.sandbox.wait_for(1), 20)  # it does not wait for what it calls

    assert ended.status == 0, ended.err
    assert sorted(desk.accepted.recipients) == ["b@example.net", "c@example.net"]
    assert b"\r\nSubject: backup\r\n" in desk.content
    assert b"c@example.net" not in desk.content
    assert desk.content.endswith(b"\r\n\r\nhello\r\n.x\r\n")


async def test_mutt(tmp_path):
    """By its `sendmail` variable, with an attachment."""
    mutt = installed("mutt", "mutt")
    (tmp_path / "muttrc").write_text(
        f'set sendmail="{PROGRAM} -oem -oi"\nset copy=no\nset from="a@example.com"\nset use_envelope_from=yes\n'
    )
    (tmp_path / "data.bin").write_bytes(bytes(range(256)))
    async with desk_in(tmp_path) as desk:
        command = [mutt, "-n", "-F", str(tmp_path / "muttrc"), "-s", "data", "-a", str(tmp_path / "data.bin")]
        ended = await program([*command, "--", "b@example.net"], b"hello\n.\n", desk.environ)

    assert ended.status == 0, ended.err
    assert (desk.accepted.reverse_path, desk.accepted.recipients) == ("a@example.com", ("b@example.net",))
    assert b"\r\n\r\nhello\r\n.\r\n" in desk.content
    assert b'filename="data.bin"' in desk.content


async def test_git_send_email(tmp_path):
    """By `sendemail.smtpServer`, a patch."""
    git = installed("git", "git")
    if (await program([git, "send-email", "--dump-aliases"], b"", clean(HOME=str(tmp_path)), cwd=tmp_path)).status:
        pytest.skip("git send-email does not run (Debian packages git-email and libmailtools-perl)")
    patch = (
        b"From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\nFrom: A <a@example.com>\n"
        b"Date: Thu, 1 Jan 2026 00:00:00 +0000\nSubject: [PATCH] x\n\ndiff\n.\n---\n x | 1 +\n\n-- \n2.39.5\n"
    )
    (tmp_path / "0001-x.patch").write_bytes(patch)
    (tmp_path / ".gitconfig").write_text("[user]\n\tname = A\n\temail = a@example.com\n")
    async with desk_in(tmp_path) as desk:
        command = [
            *[git, "send-email", f"--smtp-server={PROGRAM}", "--from=A <a@example.com>", "--to=b@example.net"],
            *["--confirm=never", "--quiet", "--no-chain-reply-to", str(tmp_path / "0001-x.patch")],
        ]
        ended = await program(command, b"", desk.environ, cwd=tmp_path)

    assert ended.status == 0, ended.err
    assert "b@example.net" in desk.accepted.recipients
    assert desk.content.endswith(patch.partition(b"\n\n")[2].replace(b"\n", b"\r\n"))


async def test_a_dialogue_on_stdin(tmp_path):
    """-bs: the relay's own replies come back, those of the last commands too."""
    dialogue = (
        b"EHLO c\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n" + MESSAGE + b".\r\nQUIT\r\n"
    )
    async with desk_in(tmp_path) as desk:
        ended = await desk.sendmail("-bs", text=dialogue)

    assert (ended.status, ended.err) == (0, "")
    assert [line[:4] for line in ended.out.splitlines() if line[3:4] == b" "] == [
        *[b"220 ", b"250 ", b"250 ", b"250 ", b"354 ", b"250 ", b"221 "]
    ]
    assert desk.content == MESSAGE


async def test_a_dialogue_with_nobody():
    """The caller hears an SMTP reply."""
    ended = await program([str(PROGRAM), "-bs"], b"EHLO c\r\n", environment(f"127.0.0.1:{free_port()}"))

    assert ended.status == os.EX_TEMPFAIL
    assert ended.out.startswith(b"421 4.4.1 the relay cannot be reached")
    assert ended.out.endswith(b"\r\n")


async def test_a_long_dialogue_whose_replies_are_read_late(tmp_path):
    """Nothing waits for ever where the caller writes all and only then reads."""
    recipients = b"".join(b"RCPT TO:<b%d@example.net>\r\n" % number for number in range(20_000))
    commands = b"EHLO c\r\nMAIL FROM:<a@example.com>\r\n" + recipients + b"QUIT\r\n"
    async with desk_in(tmp_path) as desk:
        ended = await desk.sendmail("-bs", text=commands)

    assert ended.status == 0
    assert ended.out.count(b"\r\n250 2.1.5 ") == 1000
    assert ended.out.splitlines()[-1].startswith((b"221 ", b"421 "))


async def test_twenty_megabytes_in_little_memory(tmp_path):
    """A large message is not held as a whole, let alone twice."""
    text = HEADER + b"\r\n" + (b"." + b"x" * 75 + b"\r\n") * 240_000

    async def peak(text: bytes) -> int:
        """In kB. A small program starts it, because a process begins with the peak of the one that it is a copy of."""
        starter = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        command = [sys.executable, "-S", "-c", starter, str(PROGRAM), "-i", "b@example.net"]
        ended = await program(command, text, desk.environ)
        assert (ended.status, ended.err) == (0, "")
        return int(ended.out)

    async with desk_in(tmp_path, delivery={"cut_through_deadline": "30s"}) as desk:
        small, large = await peak(MESSAGE), await peak(text)

    assert desk.sandbox.accepted[1].content.endswith(text)
    assert large - small < 6_000


async def test_more_recipients_than_the_relay_takes_at_once(tmp_path):
    """They are served in several transactions."""
    recipients = [f"r{number}@example.net" for number in range(5)]
    async with desk_in(tmp_path, limits={"recipients": 2}) as desk:
        ended = await desk.sendmail("-i", *recipients, text=MESSAGE)

    assert ended == Ended(0, b"", "")
    assert [len(one.recipients) for one in desk.sandbox.accepted] == [2, 2, 1]
    assert [to for one in desk.sandbox.accepted for to in one.recipients] == recipients


@pytest.mark.parametrize(
    ("arguments", "text", "status", "said"),
    [
        (["-i", "550-5.1.1@example.net"], MESSAGE, os.EX_NOUSER, "550 5.1.1"),
        (["-i", "tempfail@example.net"], MESSAGE, os.EX_TEMPFAIL, r": 45[01] 4\."),
        (["-t", "-i"], HEADER + b"\r\nx\r\n", os.EX_DATAERR, "nobody is named"),
        (["-t", "-i"], HEADER + b"To: Jane Doe\r\n\r\nx\r\n", os.EX_DATAERR, "To: 'Jane Doe' is no address"),
        (["-i"], MESSAGE, os.EX_USAGE, "nobody is named"),
        (["-i", "a@b.c d@e.f"], MESSAGE, os.EX_USAGE, "is no address"),
        (["-Z"], b"", os.EX_USAGE, "there is no option -Z"),
        (["-bd"], b"", os.EX_USAGE, "sparkpost-relay serve"),
        (["-C", "/nonexistent", "-q"], b"", os.EX_OK, ""),
    ],
)
async def test_statuses(tmp_path, arguments, text, status, said):
    """Of sysexits(3), with the reason on stderr; where it is the relay's, in its words."""
    async with desk_in(tmp_path) as desk:
        ended = await desk.sendmail(*arguments, text=text)

    assert ended.status == status, ended.err
    assert re.search(said, ended.err)
    assert (ended.err == "") == (status == 0)
    assert not desk.sandbox.accepted


async def test_wishes_about_notices_are_taken(tmp_path):
    """The relay knows NOTIFY, RET and ENVID though it does not offer them."""
    async with desk_in(tmp_path) as desk:
        ended = await desk.sendmail("-N", "never", "-R", "hdrs", "-V", "a b", "b@example.net", text=MESSAGE)

    assert ended == Ended(0, b"", "")
    assert desk.content == MESSAGE


async def test_verbose(tmp_path):
    """-v shows SparkPost's own answer."""
    async with desk_in(tmp_path) as desk:
        ended = await desk.sendmail("-v", "b@example.net", text=MESSAGE)

    assert ended.status == 0
    assert f"the final dot: 250 2.0.0 OK {desk.accepted.token}" in ended.err


async def test_nobody_listens():
    """EX_TEMPFAIL, and where it looked."""
    port = free_port()
    ended = await program([str(PROGRAM), "b@example.net"], MESSAGE, environment(f"localhost:{port}"))

    assert ended.status == os.EX_TEMPFAIL
    assert ended.err == (
        f"sendmail: the relay cannot be reached at localhost:{port} ($RELAY_SENDMAIL): Connection refused. "
        "Is `sparkpost-relay serve` running? Nothing was sent\n"
    )


async def test_nobody_reads_what_it_says():
    """A closed stderr, or a broken pipe, changes the status as little as it makes a traceback."""
    environ = environment(f"localhost:{free_port()}")
    reading, writing = os.pipe()
    os.close(reading)
    for stderr in (f"2>&{writing}", "2>&-"):
        command = f"{shlex.quote(str(PROGRAM))} b@example.net {stderr}"
        ended = await program(["bash", "--norc", "-c", command], MESSAGE, environ, pass_fds=[writing])
        assert (ended.status, ended.err) == (os.EX_TEMPFAIL, "")
    os.close(writing)


async def test_what_it_says_on_a_closed_stderr_is_not_said_to_the_relay(tmp_path):
    """The connection does not get the number of stderr: the dialogue is what it would be."""
    async with desk_in(tmp_path) as desk:
        ended = await program(
            ["bash", "--norc", "-c", f"{shlex.quote(str(PROGRAM))} -v b@example.net 2>&-"], MESSAGE, desk.environ
        )

    assert ended == Ended(0, b"", "")
    assert desk.content == MESSAGE


async def test_a_dialogue_on_a_closed_stdin(tmp_path):
    """What the relay says is not read as the caller's words."""
    async with desk_in(tmp_path) as desk:
        ended = await program(["bash", "--norc", "-c", f"{shlex.quote(str(PROGRAM))} -bs <&-"], b"", desk.environ)

    assert ended.status == os.EX_TEMPFAIL
    assert "Bad file descriptor" in ended.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
async def test_a_signal_ends_it_and_nothing_is_sent(number):
    """Within the message, quietly: without its dot it is none."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = await asyncio.create_subprocess_exec(
            *[str(PROGRAM), "-i", "b@example.net"],
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(f"127.0.0.1:{listener.getsockname()[1]}"),
        )
        process.stdin.write(HEADER + b"\r\n" + b"x\r\n" * 3_000_000)
        process.stdin.write_eof()
        connection, _ = await asyncio.to_thread(listener.accept)
        with connection, connection.makefile("rb") as lines:
            for reply in (b"220 x\r\n", b"250 x\r\n", b"250 x\r\n", b"250 x\r\n"):
                connection.sendall(reply)
                lines.readline()
            connection.sendall(b"354 x\r\n")
            lines.readline()
            process.send_signal(number)
            rest = await asyncio.to_thread(lines.read)
        _, said = await asyncio.wait_for(process.communicate(), 20)

    assert (process.returncode, said) == (-number, b"")
    assert not rest.endswith(b".\r\n")


async def test_the_configuration_says_where_the_relay_is_and_mailq_lists_what_waits(tmp_path):
    """-C and $RELAY_CONFIG; a link called mailq is enough; SparkPost is away, so the message waits."""
    (tmp_path / "mailq").symlink_to(PROGRAM)
    (tmp_path / "newaliases").symlink_to(PROGRAM)
    port = free_port()
    config = write_config(
        tmp_path / "relay.yaml",
        listeners=[{"name": "tls", "address": "127.0.0.1:0", "auth": "required"}, {"address": f"127.0.0.1:{port}"}],
        credentials={"default": {"api_key": KEY}},
        identities=[
            {"name": "shop", "match": {"login": "shop"}, "password": "correct-horse"},
            {"name": "app", "match": {}, "delivery": "queue"},
        ],
        upstream={"host": "127.0.0.1", "ports": [free_port()]},
        spool={"url": f"sqlite:{tmp_path / 'spool.db'}", "reserve": "1MB"},
        admin={"address": None, "socket": str(tmp_path / "admin.sock")},
    )
    environ = environment("", RELAY_CONFIG=config)
    async with serving(config):
        sent = await program([str(PROGRAM), "-v", "b@example.net"], MESSAGE, environ)
        by_link = await program([str(tmp_path / "mailq")], b"", environ)
        by_option = await program([str(PROGRAM), "-bp", "-C", config], b"", environment(""))
        nothing = await program([str(tmp_path / "newaliases")], b"", environ)

    queued = re.search(r"250 2\.0\.0 queued as (\w+)", sent.err)
    assert queued, sent.err
    assert (by_link.status, by_option.status) == (0, 0), by_link.err
    assert queued[1] in by_link.out.decode()
    assert queued[1] in by_option.out.decode()
    assert nothing == Ended(0, b"", "")


async def test_the_other_ways_to_call_it(tmp_path):
    """`sparkpost-relay sendmail` and `python -m relay sendmail`, with sendmail's own syntax behind them."""
    async with desk_in(tmp_path) as desk:
        for command in ([str(PROGRAM.with_name("sparkpost-relay"))], [sys.executable, "-m", "relay"]):
            ended = await program([*command, "sendmail", "-itfa@example.com"], MESSAGE, desk.environ)
            assert ended == Ended(0, b"", "")

    assert [one.content.endswith(MESSAGE) for one in desk.sandbox.accepted] == [True, True]
    assert (await run("sendmail", "-bd")).status == os.EX_USAGE


async def test_it_imports_next_to_nothing(tmp_path):
    """So that it starts quickly: a message is sent without the modules that would take longer than all the rest."""
    config = write_config(tmp_path / "relay.yaml", hostname="relay.example.com")
    async with desk_in(tmp_path) as desk:
        environ = {name: value for name, value in desk.environ.items() if not name.startswith("COVERAGE")}
        command = [sys.executable, "-X", "importtime", "-m", "relay", "sendmail", "-i", "-C", config, "b@example.net"]
        ended = await program(command, MESSAGE, environ)

    assert ended.status == 0
    imported = set(re.findall(r"^import time: .*\| *([\w.]+)$", ended.err, re.MULTILINE))
    assert "relay.sendmail.command" in imported
    heavy = {"asyncio", "argparse", "dataclasses", "email", "logging", "pathlib", "pydantic", "smtplib", "ssl"}
    heavy |= {"subprocess", "tempfile", "typer", "typing", "yaml", "relay.cli", "relay.config", "relay.core"}
    assert not imported & heavy
