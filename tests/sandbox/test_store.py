"""Accepted messages on disk."""

import hashlib
import json
import resource


async def test_files_of_a_message(sandbox, connect, tmp_path):
    """One .eml with the octets, one .json with who sent it to whom; the key only as a digest."""
    folder = tmp_path / "new" / "store"
    async with sandbox(store=folder) as box, connect(box) as client:
        await client.starttls()
        await client.login("SMTP_Injection:X-MSYS-SUBACCOUNT=7")
        await client.say("MAIL FROM:<a@example.com> BODY=8BITMIME")
        await client.say("RCPT TO:<b@example.org>")
        await client.say("RCPT TO:<c@example.org>")
        await client.say("DATA")
        await client.say("Subject: é\r\n\r\n..x\r\n.")
        facts = json.loads((folder / "00000001.json").read_text())

    assert sorted(path.name for path in folder.iterdir()) == ["00000001.eml", "00000001.json"]
    assert (folder / "00000001.eml").read_bytes() == "Subject: é\r\n\r\n.x\r\n".encode()
    assert facts == {
        "id": box.accepted[0].token,
        "received_at": box.accepted[0].received_at.isoformat(),
        "auth_user": "SMTP_Injection:X-MSYS-SUBACCOUNT=7",
        "subaccount": 7,
        "api_key_sha256": hashlib.sha256(b"secret").hexdigest()[:12],
        "reverse_path": "a@example.com",
        "mail_parameters": {"BODY": "8BITMIME"},
        "recipients": ["b@example.org", "c@example.org"],
        "port": box.addresses[0][1],
        "connection": 1,
        "ambiguous": False,
        "via": "smtp",
        "size": 19,
        "content": "00000001.eml",
    }
    assert "secret" not in (folder / "00000001.json").read_text()


async def test_order_of_arrival(sandbox, connect, tmp_path):
    """Names sort in order of arrival, also over several runs; what was there is never overwritten."""
    for run in range(2):
        async with sandbox(store=tmp_path) as box, connect(box) as client:
            await client.ready()
            for n in range(6):
                await client.mail(content=b"%d %d\r\n" % (run, n))

    contents = [path.read_bytes() for path in sorted(tmp_path.glob("*.eml"))]
    assert contents == [b"%d %d\r\n" % (run, n) for run in range(2) for n in range(6)]


async def test_a_store_that_cannot_be_written(sandbox, connect, tmp_path, caplog):
    """The message is refused for now, and the reason is logged: a 250 means that the files are there."""
    folder = tmp_path / "store"
    async with sandbox(store=folder) as box, connect(box) as client:
        await client.ready()
        folder.rmdir()

        assert await client.mail() == "451 4.3.0 transaction failed"
        folder.mkdir()
        assert (await client.mail()).startswith("250 ")
    assert len(box.accepted) == 1
    assert "could not be stored" in caplog.text


async def test_what_does_not_fit_leaves_nothing(sandbox, connect, tmp_path):
    """Half a file on a full disk would keep it full; here the limit of a file's size stands for it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with sandbox(store=tmp_path) as box, connect(box) as client:
        await client.ready()
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            replies = [await client.mail(content=b"x\r\n" * lines) for lines in (4000, 1)]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert [reply[:9] for reply in replies] == ["451 4.3.0", "250 2.0.0"]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".eml", ".json"]


async def test_a_message_is_there_with_both_its_files_or_not_at_all(sandbox, connect, tmp_path):
    """An .eml that was answered 451 would be one too many."""
    async with sandbox(store=tmp_path) as box, connect(box) as client:
        await client.ready()
        (tmp_path / "00000001.json").mkdir()

        assert (await client.mail()).startswith("451 4.3.0 ")
    assert [path.name for path in tmp_path.iterdir()] == ["00000001.json"]


async def test_ambiguous_messages_are_stored(sandbox, connect, tmp_path):
    """A message whose 250 was withheld is on disk too, and says so."""
    async with sandbox(store=tmp_path) as box, connect(box) as client:
        await client.ready()
        await client.say("MAIL FROM:<>")
        await client.say("RCPT TO:<disconnect-after-dot@example.org>")
        await client.say("DATA")
        await client.send(b"x\r\n.\r\n")
        await client.ended()

    assert json.loads((tmp_path / "00000001.json").read_text())["ambiguous"] is True
    assert len(box.accepted) == 1
