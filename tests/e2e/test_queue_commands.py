"""The `queue` commands, as an operator runs them: while a relay runs, and while none does."""

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import pytest

from relay.spool.lock import SpoolLock
from relay.spool.room import free
from tests.spool.driven import small_disk
from tests.support.admin import ask, fill, keeping, unix_of
from tests.support.client import send
from tests.support.running import port_of, relay_to, sandbox_with
from tests.support.serving import run, run_on_a_terminal, write_config

HOSTILE = b"From: a@example.com\r\nSubject: \x1b[31mred\x1b]0;owned\x07 \xe2\x80\xaeback\r\n\r\nhello \x1b[2J\r\n"


def config_of(folder: Path, **sections) -> str:
    """A configuration file for the relay of a test: its spool, and a key that only the service can see."""
    return write_config(
        folder / "relay.yaml",
        **{
            "spool": keeping(folder)["spool"],
            "credentials": {"default": {"api_key": {"credential": "api-key"}}},
        }
        | sections,
    )


@contextlib.asynccontextmanager
async def relay_with_mail(folder: Path, *contents: bytes):
    """A relay that runs, with one deferred message for each content."""
    async with sandbox_with(folder / "tls") as sandbox, relay_to(sandbox, **keeping(folder)) as relay:
        for content in contents:
            await send(port_of(relay), "tempfail@example.net", "550-5.1.1@example.net", content=content)
        yield relay


async def test_the_commands_while_the_relay_runs(tmp_path):
    """list, show, hold, release, retry, delete and stats go through its socket and tell what came of them."""
    config = config_of(tmp_path)
    async with relay_with_mail(tmp_path, HOSTILE, HOSTILE) as relay:
        listed = await run("queue", "list", "--json", "--config", config)
        first, second = (one["id"] for one in listed.json)
        api = (await ask(unix_of(relay), "/api/v1/messages")).json["messages"]
        table = await run("queue", "list", "--config", config, COLUMNS="80")
        shown = await run("queue", "show", first, "--config", config, COLUMNS="80")
        held = await run("queue", "hold", first, second, "--config", config)
        refused = await run("queue", "hold", first, "NOSUCHMESSAGE", "--config", config)
        found = await run("queue", "list", "--state", "held", "--search", second.lower(), "--json", "--config", config)
        released = await run("queue", "release", "--all", "--json", "--config", config)
        deleted = await run("queue", "delete", "--all", "--config", config)
        stats = await run("queue", "stats", "--json", "--config", config)
        empty = await run("queue", "list", "--config", config)

    assert (listed.status, listed.err) == (0, "")
    volatile = ("state", "due", "attempts")
    assert [without(one, *volatile) for one in listed.json] == [without(one, *volatile) for one in api]
    assert all(len(line) <= 80 for line in table.out.splitlines())
    assert f"{first} queued" in table.out
    assert "-> tempfail@example.net and 1 more" in table.out
    assert "550 5.1.1 as the address asked" in shown.out
    assert (held.status, held.out) == (0, f"{first} held\n{second} held\n")
    assert refused.status == 1
    assert f"{first} cannot be moved: it is held" in refused.err
    assert "there is no message NOSUCHMESSAGE in the spool" in refused.err
    assert [one["id"] for one in found.json] == [second]
    assert released.json == [{"id": first, "state": "queued"}, {"id": second, "state": "queued"}]
    assert (deleted.status, deleted.out) == (0, "2 messages deleted\n")
    assert stats.json["messages"]["queued"] + stats.json["messages"]["active"] <= 2
    assert empty.status == 0


def without(entry: dict, *names: str) -> dict:
    return {name: value for name, value in entry.items() if name not in names}


async def test_the_commands_while_no_relay_runs(tmp_path):
    """They open the spool themselves; what they change holds when the relay comes back. No secret is needed for it."""
    config = config_of(tmp_path)
    async with relay_with_mail(tmp_path, HOSTILE, HOSTILE):
        pass
    listed = await run("queue", "list", "--json", "--config", config)
    first, second = (one["id"] for one in listed.json)
    shown = await run("queue", "show", first, "--json", "--config", config)
    held = await run("queue", "hold", first, "--config", config)
    deleted = await run("queue", "delete", second, "NOSUCHMESSAGE", "--config", config)
    content = await run("queue", "show", second, "--content", "--config", config)
    unknown = await run("queue", "show", "NOSUCHMESSAGE", "--config", config)
    async with relay_with_mail(tmp_path) as relay:
        api = (await ask(unix_of(relay), "/api/v1/messages")).json["messages"]

    assert listed.json[0]["login"] == "SMTP_Injection"
    assert [one["attempt"] for one in shown.json["history"]] == [1, 1]
    assert (held.status, held.out, held.err) == (0, f"{first} held\n", "")
    assert (deleted.status, deleted.out) == (1, f"{second} deleted\n")
    assert "NOSUCHMESSAGE" in deleted.err
    assert (content.status, content.out) == (1, "")
    assert f"the content of {second} is not kept, as it is deleted" in content.err
    assert unknown.status == 1
    assert [(one["id"], one["state"]) for one in api] == [(first, "held"), (second, "deleted")]


async def test_no_mail_text_reaches_the_terminal_as_it_is(tmp_path):
    """Escape sequences and turned writing in a Subject or a body are shown, not obeyed; a pipe gets every octet."""
    config = config_of(tmp_path)
    async with relay_with_mail(tmp_path, HOSTILE):
        queue_id = (await run("queue", "list", "--json", "--config", config)).json[0]["id"]
        table = await run("queue", "show", queue_id, "--config", config)
        content = await run_on_a_terminal("queue", "show", queue_id, "--content", "--config", config)
        piped = await run("queue", "show", queue_id, "--content", "--config", config)

    for shown in (table.out, content.out):
        assert "\x1b" not in shown
        assert "\x07" not in shown
        assert "\u202e" not in shown
        assert "\\x1b[31mred\\x1b]0;owned\\x07" in shown
    assert piped.out.endswith(HOSTILE.decode().replace("\r\n", "\n")) or piped.out.endswith(HOSTILE.decode())


async def test_a_long_action_shows_how_far_it_is(tmp_path):
    """On a terminal; in a pipe there is nothing but the result."""
    config = config_of(tmp_path)
    async with relay_with_mail(tmp_path):
        pass
    fill(tmp_path / "spool.db", 1500)
    seen = await run_on_a_terminal("queue", "hold", "--all", "--config", config)
    piped = await run("queue", "release", "--all", "--config", config)
    table = await run("queue", "list", "--config", config)
    failed = await run("queue", "retry", "--all", "--state", "failed", "--config", config)

    assert "1500/1500" in seen.out
    assert seen.out.endswith("1,500 messages held\r\n")
    assert (piped.out, piped.err) == ("1,500 messages released\n", "")
    assert len(table.out.splitlines()) == 1 + 200 * 2 + 1
    assert table.out.endswith("and more: --limit N shows more than 200, `queue stats` counts them\n")
    assert failed.out == "0 messages due now\n"


async def test_a_relay_that_does_not_answer_is_69(tmp_path):
    """It holds the spool and its socket is dead, silent, or not there: each is told, with place and remedy."""
    config = config_of(tmp_path)
    async with relay_with_mail(tmp_path):
        pass
    path = tmp_path / "admin.sock"
    async with locked(tmp_path / "spool.db", str(path)):
        gone = await run("queue", "list", "--config", config)
    async with locked(tmp_path / "spool.db", str(path)):
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(path))
            silent.listen()
            hung = await run("queue", "hold", "--all", "--config", config)
    async with locked(tmp_path / "spool.db", None):
        busy = await run("queue", "stats", "--config", config)

    assert [gone.status, hung.status, busy.status] == [69, 69, 69]
    assert f"the relay (process {os.getpid()}) runs, but its admin socket {path} does not answer: No such" in gone.err
    assert f"{path} does not answer: timed out" in hung.err
    assert f"spool.db is in use by the process {os.getpid()}" in busy.err


@contextlib.asynccontextmanager
async def locked(database: Path, path: str | None):
    lock = await SpoolLock.take(database, socket=path)
    try:
        yield
    finally:
        lock.close()


async def test_a_relay_that_is_about_to_stop_is_waited_for(tmp_path):
    """Its lock goes a moment later: then the command opens the spool itself."""
    config = config_of(tmp_path)
    async with relay_with_mail(tmp_path):
        pass
    path = tmp_path / "admin.sock"
    async with locked(tmp_path / "spool.db", str(path)):
        with socket.socket(socket.AF_UNIX) as stopping:
            stopping.bind(str(path))
            stopping.listen()
            command = asyncio.create_task(run("queue", "stats", "--json", "--config", config))
            asked, _ = await asyncio.to_thread(stopping.accept)
            stopping.close()
            asked.close()

    ran = await command
    assert (ran.status, ran.err) == (0, "")
    assert ran.json["messages"]["queued"] == 0


@pytest.mark.parametrize(
    ("sections", "status", "text"),
    [
        ({"spool": {"url": "none"}}, 1, "this relay keeps no queue (spool.url: none)"),
        ({}, 1, "spool.db: no relay has run with this configuration yet (spool.url)"),
        ({"spool": {"url": "sqlite:relay.yaml"}}, 78, "relay.yaml is no database"),
        ({"spool": {"uri": "none"}}, 78, "spool.uri: there is no such key"),
    ],
)
async def test_where_there_is_no_queue(tmp_path, sections, status, text):
    """It says so, and names the key."""
    sections = {
        name: {key: value.replace(":relay", f":{tmp_path}/relay") for key, value in section.items()}
        for name, section in sections.items()
    }
    ran = await run("queue", "list", "--config", config_of(tmp_path, **sections))

    assert (ran.status, ran.out) == (status, "")
    assert text in ran.err


@pytest.mark.parametrize(
    ("place", "why"),
    [("x" * 300, "File name too long"), ("relay.yaml/spool.db", "Not a directory"), ("circle", "symbolic links")],
)
async def test_a_place_where_no_spool_can_be_is_no_traceback(tmp_path, place, why):
    """`health` and `queue` say that there is none, and `serve` why it does not start."""
    (tmp_path / "circle").symlink_to("circle")
    config = config_of(
        tmp_path,
        spool={"url": f"sqlite:{tmp_path / place}"},
        listeners=[{"address": "127.0.0.1:0"}],
        credentials={"default": {"api_key": "a-key"}},
    )
    health, queue, serve = [
        await run(*which, "--config", config) for which in (["health"], ["queue", "list"], ["serve"])
    ]

    assert (health.status, serve.status) == (1, 78)
    assert "no relay runs" in health.out
    assert why in serve.err
    assert queue.status in {1, 69}
    for ran in (health, queue, serve):
        assert "Traceback" not in ran.err


@pytest.mark.parametrize("arguments", [["retry"], ["hold", "X", "--all"], ["delete", "X", "--state", "held"]])
async def test_what_to_move_must_be_clear(tmp_path, arguments):
    """Ids, or --all, and never both: nothing is moved by mistake."""
    ran = await run("queue", *arguments, "--config", config_of(tmp_path))

    assert ran.status == 2
    assert "name messages by their ids, or give --all" in ran.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave files that others cannot open")
async def test_what_root_does_leaves_the_spool_to_the_relays_user(tmp_path):
    """Root runs a command on the spool of another user: every file of it is still that user's."""
    config = config_of(tmp_path)
    async with relay_with_mail(tmp_path):
        pass
    for path in tmp_path.glob("spool.db*"):
        os.chown(path, 65534, 65534)
    (tmp_path / "spool.db.lock").unlink()
    ran = await run("queue", "stats", "--config", config)

    assert ran.status == 0
    assert {path.stat().st_uid for path in tmp_path.glob("spool.db*")} == {65534}


async def test_a_full_disk_is_69(tmp_path):
    """As for the relay itself: it may have room the next time."""
    with small_disk(tmp_path / "disk", "2m") as disk:
        config = config_of(tmp_path, spool={"url": f"sqlite:{disk}/spool.db"})
        (disk / "spool.db").touch()
        (disk / "others").write_bytes(bytes(free(disk)))

        full = await run("queue", "stats", "--config", config)

    assert full.status == 69
    assert f"{disk}/spool.db cannot be opened: the disk is full" in full.err
