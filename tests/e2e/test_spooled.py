"""The whole relay with a spool: what the application hears, and what becomes of its mail afterwards."""

import asyncio
import smtplib
import sqlite3
import time

import pytest

from relay.core.lifecycle import Fate, State
from relay.sandbox import Port
from tests.support.client import CONTENT, send
from tests.support.ledger import read, settled, until
from tests.support.running import KEY, port_of, relay_to, sandbox_with

QUICK = {"retry": {"first": "50ms", "max": "200ms"}}


def spooled(tmp_path, **sections):
    """A configuration with a spool of its own, and quick retries."""
    delivery = {**QUICK, **sections.pop("delivery", {})}
    return {"spool": {"url": f"sqlite:{tmp_path}/spool.db", "reserve": 0}, "delivery": delivery, **sections}


async def test_sparkposts_answer_is_the_answer_and_goes_into_the_ledger(tmp_path):
    """Cut-through: 250 with SparkPost's own id; nothing is queued, and the ledger has a line."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **spooled(tmp_path)) as relay:
        code, text = await send(port_of(relay))
        (entry,) = await settled(relay)

    assert code == 250
    assert sandbox.accepted[0].token in text
    assert entry.state is State.DELIVERED
    assert entry.recipients[0].message_id == sandbox.accepted[0].token


async def test_a_refusal_of_everybody_goes_straight_back(tmp_path):
    """550 is 550, and nothing is kept: the application knows."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **spooled(tmp_path)) as relay:
        code, _ = await send(port_of(relay), "550-5.1.1@example.net")

        assert code == 550
        assert await read(relay) == []


async def test_not_now_is_queued_and_tried_again(tmp_path):
    """A 4yz about the message is 250 queued for the application, and each attempt counts."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **spooled(tmp_path)) as relay:
        code, text = await send(port_of(relay), "tempfail@example.net")
        (entry,) = await settled(relay, lambda found: found[0].attempts >= 3)

    assert code == 250
    assert text == f"2.0.0 queued as {entry.queue_id}"
    assert entry.state in (State.QUEUED, State.ACTIVE)
    assert [line.number for line in entry.history][:3] == [1, 2, 3]
    assert all(line.outcome == "deferred" for line in entry.history)


async def test_each_recipient_gets_its_own_outcome(tmp_path):
    """Accepted is done, refused is a dead letter, deferred is tried again, and nobody gets it twice."""
    recipients = ["b@example.net", "550-5.1.1@example.net", "451-4.3.0@example.net"]
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **spooled(tmp_path)) as relay:
        code, text = await send(port_of(relay), *recipients)
        (entry,) = await settled(relay, lambda found: found[0].attempts >= 3)

    assert code == 250
    assert "1 of 3 recipients were refused" in text
    assert f"queue show {entry.queue_id}" in text
    assert [one.fate for one in entry.recipients] == [Fate.DELIVERED, Fate.BOUNCED, Fate.PENDING]
    assert [one.recipients for one in sandbox.accepted] == [("b@example.net",)]


async def test_the_deadline_detaches_the_client_and_not_the_attempt(tmp_path):
    """The application hears `queued` in time; the one attempt goes on, and its 250 is recorded. No second copy."""
    delivery = {"cut_through_deadline": "300ms"}
    async with (
        sandbox_with(tmp_path / "tls") as sandbox,
        relay_to(sandbox, **spooled(tmp_path, delivery=delivery)) as relay,
    ):
        started = time.monotonic()
        code, text = await send(port_of(relay), "slow-dot-1500ms@example.net")
        took = time.monotonic() - started
        (entry,) = await settled(relay, lambda found: found[0].state is State.DELIVERED)

    assert code == 250
    assert text == f"2.0.0 queued as {entry.queue_id}"
    assert took < 1.4
    assert len(sandbox.accepted) == 1
    assert len(entry.history) == 1


async def test_queue_mode_answers_before_it_delivers(tmp_path):
    """`delivery: queue`: committed, 250, then delivered."""
    identities = [{"name": "bulk", "delivery": "queue"}]
    async with (
        sandbox_with(tmp_path / "tls") as sandbox,
        relay_to(sandbox, **spooled(tmp_path, identities=identities)) as relay,
    ):
        code, text = await send(port_of(relay))
        (entry,) = await settled(relay, lambda found: found[0].state is State.DELIVERED)

    assert code == 250
    assert text == f"2.0.0 queued as {entry.queue_id}"
    assert [one.recipients for one in sandbox.accepted] == [("b@example.net",)]


async def test_silence_after_the_dot_is_queued_and_marked(tmp_path):
    """Nobody knows whether SparkPost has it: it is tried again by the ordinary schedule, and the ledger says so."""
    upstream = {"timeouts": {"final_dot": "300ms"}}
    async with (
        sandbox_with(tmp_path / "tls") as sandbox,
        relay_to(sandbox, **spooled(tmp_path, upstream=upstream)) as relay,
    ):
        code, _ = await send(port_of(relay), "silent-after-dot@example.net")
        (entry,) = await settled(relay, lambda found: found[0].attempts >= 2)

    assert code == 250
    assert entry.maybe_twice
    assert entry.history[0].outcome == "ambiguous"


async def test_blocked_ports_eat_no_attempts_and_mail_goes_out_when_they_open(tmp_path):
    """While nothing can be reached mail is taken at once and kept; it goes out by itself, each message once."""
    async with sandbox_with(tmp_path / "tls", ports=[Port(mode="drop")]) as sandbox:
        sections = spooled(tmp_path)
        async with relay_to(sandbox, **sections) as relay:
            codes = [await send(port_of(relay)) for _ in range(5)]
            found = await settled(relay, lambda found: len(found) == 5)

            assert [code for code, _ in codes] == [250] * 5
            assert {entry.attempts for entry in found} == {0}
            assert relay.circuits.targets_down

            sandbox.set_mode("normal")
            found = await settled(relay, lambda found: all(entry.state is State.DELIVERED for entry in found))

    assert len(sandbox.accepted) == 5
    assert len(found) == 5


async def test_a_refused_key_holds_mail_back_and_is_tried_once(tmp_path):
    """535: the mail is kept, the login is left alone, other credentials go on."""
    credentials = {"default": {"api_key": "f" * 40}, "good": {"api_key": KEY}}
    identities = [
        {"name": "good", "match": {"mail_from": "*@good.example"}, "credential": "good"},
        {"name": "bad", "credential": "default"},
    ]
    async with (
        sandbox_with(tmp_path / "tls") as sandbox,
        relay_to(sandbox, **spooled(tmp_path, credentials=credentials, identities=identities)) as relay,
    ):
        bad = [await send(port_of(relay)) for _ in range(4)]
        good = await send(port_of(relay), mail_from="x@good.example")
        found = await settled(relay, lambda found: len(found) == 5)

    assert {code for code, _ in bad} == {250}
    assert good[0] == 250
    assert len(sandbox.accepted) == 1
    assert sum(entry.state is State.QUEUED and entry.attempts == 0 for entry in found) == 4
    assert [one.accepted for one in sandbox.auth_attempts].count(False) == 1


async def test_a_message_survives_the_relay(tmp_path):
    """Stopped with mail in the spool and started again: it goes out."""
    sections = spooled(tmp_path)
    async with sandbox_with(tmp_path / "tls", ports=[Port(mode="drop")]) as sandbox:
        async with relay_to(sandbox, **sections) as relay:
            code, _ = await send(port_of(relay), content=b"Subject: big\r\n\r\n" + b"x" * 70 + b"\r\n" * 100_000)
        sandbox.set_mode("normal")
        async with relay_to(sandbox, **sections) as relay:
            (entry,) = await settled(relay, lambda found: found[0].state is State.DELIVERED)

    assert code == 250
    assert len(sandbox.accepted) == 1
    assert sandbox.accepted[0].content.endswith(b"x" * 70 + b"\r\n" * 100_000)
    assert not list((tmp_path / "spool.db.content").iterdir())
    assert entry.history


async def test_without_room_mail_that_needs_the_spool_is_refused_for_now(tmp_path):
    """452 4.3.1 in queue mode; cut-through mail goes on as if there were no spool."""
    identities = [{"name": "bulk", "match": {"mail_from": "bulk@*"}, "delivery": "queue"}, {"name": "rest"}]
    sections = spooled(tmp_path, identities=identities)
    sections["spool"]["reserve"] = "1000000GB"
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **sections) as relay:
        queued = await send(port_of(relay), mail_from="bulk@example.com")
        direct = await send(port_of(relay))
        later = await send(port_of(relay), "tempfail@example.net")

    assert queued[0] == 452
    assert queued[1].startswith("4.3.1 ")
    assert direct[0] == 250
    assert later[0] == 451
    assert len(sandbox.accepted) == 1


async def test_two_relays_on_one_spool_are_refused(tmp_path):
    """The second says who has it."""
    from relay.spool.lock import SpoolInUse

    sections = spooled(tmp_path, drain_timeout="100ms")
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **sections):
        with pytest.raises(SpoolInUse, match="one relay a spool"):
            async with relay_to(sandbox, **sections):
                pass


async def test_a_bounce_message_comes_back_to_the_sender(tmp_path):
    """With `bounces.from`, the refused recipient of a mixed message is reported, under the same login."""
    delivery = {"bounces": {"from": "relay@example.com"}}
    async with (
        sandbox_with(tmp_path / "tls") as sandbox,
        relay_to(sandbox, **spooled(tmp_path, delivery=delivery)) as relay,
    ):
        await send(port_of(relay), "b@example.net", "550-5.1.1@example.net")
        await settled(relay, lambda found: [one.state for one in found] == [State.FAILED, State.DELIVERED])

    report = sandbox.accepted[1]
    assert (report.reverse_path, report.recipients) == ("", ("a@example.com",))
    assert b"Final-Recipient: rfc822; 550-5.1.1@example.net\r\nAction: failed\r\nStatus: 5.1.1" in report.content


async def test_who_did_not_want_to_know_is_not_told(tmp_path):
    """NOTIFY=NEVER and a NOTIFY without FAILURE keep a recipient out of the report; ENVID and ORCPT come back in it.

    A message all of whose failures nobody wants to hear of makes no report. Both are kept across a restart.
    """

    def send_with_parameters(port: int, envid: str, *recipients: tuple[str, str]) -> None:
        with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
            client.ehlo("client.test")
            assert client.mail("a@example.com", [f"ENVID={envid}"])[0] == 250
            for recipient, parameters in recipients:
                assert client.rcpt(recipient, [parameters])[0] == 250
            assert client.data(CONTENT)[0] == 250

    sections = spooled(
        tmp_path, delivery={"bounces": {"from": "relay@example.com"}}, identities=[{"delivery": "queue"}]
    )
    async with sandbox_with(tmp_path / "tls", ports=[Port(mode="drop")]) as sandbox:
        async with relay_to(sandbox, **sections) as relay:
            send_both = (
                ("quiet", ("550-5.1.1@one.example", "NOTIFY=NEVER"), ("550-5.1.1@two.example", "NOTIFY=DELAY,SUCCESS")),
                (
                    "Order+2B7",
                    ("550-5.1.1@three.example", "NOTIFY=never"),
                    ("550-5.1.1@four.example", "NOTIFY=FAILURE ORCPT=rfc822;Four+2Btag@Old.Example"),
                ),
            )
            for envid, *recipients in send_both:
                await asyncio.to_thread(send_with_parameters, port_of(relay), envid, *recipients)
        sandbox.set_mode("normal")
        outcome = [State.DELIVERED, State.FAILED, State.FAILED]
        async with relay_to(sandbox, **sections) as relay:
            await settled(relay, lambda found: sorted(one.state for one in found) == outcome)

    (report,) = sandbox.accepted
    assert report.content.count(b"Final-Recipient:") == 1
    assert b"\r\nOriginal-Envelope-Id: Order+7\r\n" in report.content
    assert (
        b"\r\nOriginal-Recipient: rfc822;Four+tag@Old.Example\r\n"
        b"Final-Recipient: rfc822; 550-5.1.1@four.example\r\nAction: failed\r\n"
    ) in report.content
    assert all(quiet not in report.content for quiet in (b"one.example", b"two.example", b"three.example"))


async def test_a_changed_mapping_holds_the_message(tmp_path):
    """Accepted for subaccount 1, configured for 2 meanwhile: it waits for the operator."""
    sections = spooled(tmp_path, identities=[{"name": "app", "subaccount": 1}])
    async with sandbox_with(tmp_path / "tls", ports=[Port(mode="drop")]) as sandbox:
        async with relay_to(sandbox, **sections) as relay:
            await send(port_of(relay))
        sandbox.set_mode("normal")
        sections["identities"] = [{"name": "app", "subaccount": 2}]
        async with relay_to(sandbox, **sections) as relay:
            (entry,) = await settled(relay, lambda found: found[0].state is State.HELD)

    assert sandbox.accepted == []
    assert "subaccount 2" in entry.reason
    assert "subaccount 1" in entry.reason


async def test_the_database_locked_by_another_is_451_and_heals(tmp_path):
    """Somebody holds a write lock for too long: 451 now, and mail again when it is gone."""
    sections = spooled(tmp_path, identities=[{"name": "bulk", "delivery": "queue"}])
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **sections) as relay:
        other = sqlite3.connect(tmp_path / "spool.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        locked = await send(port_of(relay))
        assert relay.spool.problem is not None
        other.execute("ROLLBACK")
        other.close()
        await until(lambda: relay.spool.problem is None)
        healed = await send(port_of(relay))

    assert locked[0] == 451
    assert locked[1].startswith("4.3.0 ")
    assert healed[0] == 250


async def test_a_changed_key_file_lets_mail_go_at_once(tmp_path):
    """The key was refused; its file gets the right one: no restart, no waiting for the next probe."""
    key_file = tmp_path / "key"
    key_file.write_text("f" * 40)
    sections = spooled(tmp_path, credentials={"default": {"api_key": "f" * 40}})
    references = {("credentials", "default", "api_key"): {"file": str(key_file)}}
    async with (
        sandbox_with(tmp_path / "tls") as sandbox,
        relay_to(sandbox, references=references, **sections) as relay,
    ):
        await send(port_of(relay))
        await settled(relay)
        refused = bool(relay.circuits.logins_refused)
        replacement = tmp_path / "new"
        replacement.write_text(f"{KEY}\n")
        replacement.replace(key_file)
        (entry,) = await settled(relay, lambda found: found[0].state is State.DELIVERED)
        left = bool(relay.circuits.logins_refused)

    assert (refused, left) == (True, False)
    assert [one.api_key for one in sandbox.accepted] == [KEY]
    assert [line.outcome for line in entry.history] == ["deferred", "delivered"]


async def test_a_key_that_is_changed_while_it_logs_in_is_not_held_against_the_new_one(tmp_path):
    """The refusal of the old key comes after the new one is known: it is nothing that anybody has to mend."""
    key_file = tmp_path / "key"
    key_file.write_text("f" * 40)
    sections = spooled(tmp_path, credentials={"default": {"api_key": "f" * 40}})
    references = {("credentials", "default", "api_key"): {"file": str(key_file)}}
    ports = [Port(mode="slow", delay=0.4)]  # a login takes longer than until the next look at the file
    async with (
        sandbox_with(tmp_path / "tls", ports=ports) as sandbox,
        relay_to(sandbox, references=references, **sections) as relay,
    ):
        sent = asyncio.create_task(send(port_of(relay)))
        replacement = tmp_path / "new"
        replacement.write_text(f"{KEY}\n")
        replacement.replace(key_file)
        await sent
        (entry,) = await settled(relay, lambda found: found[0].state is State.DELIVERED)
        refused = relay.circuits.logins_refused

    assert [one.accepted for one in sandbox.auth_attempts] == [False, True]
    assert [line.outcome for line in entry.history] == ["deferred", "delivered"]
    assert refused == {}


@pytest.mark.parametrize(
    ("recipient", "marked"), [("silent@example.net", False), ("silent-after-dot@example.net", True)]
)
async def test_what_is_in_flight_at_the_end_is_put_back(tmp_path, recipient, marked):
    """A dot that has left may have succeeded: that message is marked. One without a dot is as it was."""
    sections = spooled(tmp_path, delivery={"cut_through_deadline": "200ms"}, drain_timeout="300ms")
    async with sandbox_with(tmp_path / "tls") as sandbox:
        async with relay_to(sandbox, **sections) as relay:
            assert (await send(port_of(relay), recipient))[0] == 250
        sandbox.set_mode("drop")
        async with relay_to(sandbox, **sections) as relay:
            (entry,) = await settled(relay)

    assert entry.state in (State.QUEUED, State.ACTIVE)
    assert entry.maybe_twice is marked


@pytest.mark.parametrize("delivery", ["queue", "cut-through"])
async def test_a_stop_between_two_transactions_of_a_message_sends_nobody_a_second_copy(tmp_path, delivery):
    """SparkPost has taken it for some: that is written down, and the others have their turn after the start."""
    recipients = [f"r{number}@example.net" for number in range(12)]
    sections = spooled(
        tmp_path,
        upstream={"recipients_per_transaction": 1},
        delivery={"cut_through_deadline": "200ms"},
        identities=[{"name": "default", "delivery": delivery}],
        drain_timeout="1s",
    )
    async with sandbox_with(tmp_path / "tls", ports=[Port(mode="slow", delay=0.1)]) as sandbox:
        async with relay_to(sandbox, **sections) as relay:
            assert (await send(port_of(relay), *recipients))[0] == 250
            await until(lambda: len(sandbox.accepted) >= 2)
        before = len(sandbox.accepted)
        async with relay_to(sandbox, **sections) as relay:
            (entry,) = await settled(relay, lambda found: found[0].state is State.DELIVERED)

    assert before < len(recipients)
    assert sorted(one for mail in sandbox.accepted for one in mail.recipients) == sorted(recipients)
    assert not entry.maybe_twice


async def test_many_recipients_go_in_several_transactions(tmp_path):
    """SparkPost takes ten at once (452 4.5.3): the rest follows at once, and everybody gets it once."""
    recipients = [f"r{number}@example.net" for number in range(35)]
    async with (
        sandbox_with(tmp_path / "tls", recipients_per_message=10) as sandbox,
        relay_to(sandbox, **spooled(tmp_path)) as relay,
    ):
        code, _ = await send(port_of(relay), *recipients)

    assert code == 250
    assert [len(one.recipients) for one in sandbox.accepted] == [10, 10, 10, 5]
    assert [recipient for one in sandbox.accepted for recipient in one.recipients] == recipients


async def test_with_an_smtp_api_header_each_recipient_has_its_own_transaction(tmp_path):
    """SparkPost might queue some recipients of a message that it refuses (SD-2121)."""
    content = b'From: a@example.com\r\nX-MSYS-API: {"campaign_id": "x"}\r\n\r\nx\r\n'
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **spooled(tmp_path)) as relay:
        code, _ = await send(port_of(relay), "b@example.net", "c@example.net", content=content)

    assert code == 250
    assert [one.recipients for one in sandbox.accepted] == [("b@example.net",), ("c@example.net",)]


@pytest.mark.parametrize(
    "poison",
    [
        *["disconnect", "gibberish", "silent", "421-4.3.2", "disconnect-in-data"],
        *["451-4.3.0-after-dot", "421-4.3.2-after-dot", "disconnect-after-dot", "silent-after-dot"],
    ],
)
async def test_one_recipient_for_whom_all_fail_does_not_keep_the_others_for_ever(tmp_path, poison):
    """Whatever ends the transaction: what has failed together is tried in smaller groups, and the others get it."""
    good = [f"r{number}@example.net" for number in range(6)]
    recipients = [f"{poison}@example.net", *good]
    quick = {"cut_through_deadline": "100ms", "retry": {"first": "10ms", "max": "20ms"}}
    upstream = {"timeouts": {"command": "200ms", "final_dot": "200ms", "data_progress": "200ms"}}
    async with (
        sandbox_with(tmp_path / "tls") as sandbox,
        relay_to(sandbox, **spooled(tmp_path, delivery=quick, upstream=upstream)) as relay,
    ):
        code, _ = await send(port_of(relay), *recipients)
        (entry,) = await settled(
            relay, lambda found: [one.fate for one in found[0].recipients[1:]] == [Fate.DELIVERED] * len(good)
        )

    assert code == 250
    assert entry.recipients[0].fate is Fate.PENDING
    assert {recipient for one in sandbox.accepted if not one.ambiguous for recipient in one.recipients} == set(good)
