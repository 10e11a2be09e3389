"""Health, metrics and status: what is shown, and when it turns red."""

import asyncio
import smtplib

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from relay.app import Relay
from relay.core.lifecycle import State
from relay.core.spooled import SpoolUnavailable
from relay.sandbox import Port
from tests.support.admin import ask, keeping, tcp_of, unix_of
from tests.support.client import CONTENT, send
from tests.support.running import configuration, port_of, relay_to, sandbox_with

OWN_KEY = "fedcba9876543210fedcba9876543210fedcba98"


async def test_all_is_well(tmp_path):
    """Alive, ready, healthy; the status says what runs."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        where = tcp_of(relay)
        alive, ready, healthy, status = [
            (await ask(where, path)).json for path in ("/livez", "/readyz", "/healthz", "/api/v1/status")
        ]
        port = port_of(relay)

    assert alive == {"alive": True}
    assert ready == {"ready": True, "problems": []}
    assert healthy == {"healthy": True, "problems": []}
    assert status["phase"] == "running"
    assert status["listeners"] == [{"name": "local", "addresses": [f"127.0.0.1:{port}"], "open": True}]
    assert status["spool"] == {"problem": None, "messages": dict.fromkeys(sorted(State), 0), "oldest_seconds": 0.0}


async def test_a_spool_without_room_keeps_mail_out(tmp_path):
    """Not ready while the disk is full, with the reason; alive all the same."""
    sections = keeping(tmp_path)
    sections["spool"] = sections["spool"] | {"reserve": "4000000GB"}  # more than any disk has free
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **sections) as relay:
        where = tcp_of(relay)
        alive, red, unhealthy = [await ask(where, path) for path in ("/livez", "/readyz", "/healthz")]
        status = (await ask(where, "/api/v1/status")).json

    assert (alive.status, red.status, unhealthy.status) == (200, 503, 503)
    (problem,) = red.json["problems"]
    assert problem["what"] == "spool"
    assert "reserve" in problem["reason"]
    assert "reserve" in status["spool"]["problem"]
    assert (status["ready"], status["healthy"]) == (False, False)


async def test_a_lost_listener_keeps_mail_out(tmp_path):
    """It is named, with what would help."""
    sections = keeping(tmp_path) | {
        "listeners": [{"address": "127.0.0.1:0"}, {"name": "second", "address": "127.0.0.1:0"}]
    }
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **sections) as relay:
        relay.listeners[1].close()
        red = await ask(tcp_of(relay), "/readyz")

    assert red.status == 503
    assert [(one["what"], one["name"]) for one in red.json["problems"]] == [("listener", "second")]


async def test_draining_is_not_ready_and_alive(tmp_path):
    """While messages in hand are finished the admin server goes on, so that balancers and people see why."""
    async with sandbox_with(tmp_path / "tls") as sandbox:
        relay = Relay(configuration(sandbox, **keeping(tmp_path)))
        await relay.start()
        where = tcp_of(relay)
        sending = asyncio.create_task(send(port_of(relay), "slow-dot-1500ms@example.net"))
        await sandbox.wait_for(1)
        stopping = asyncio.create_task(relay.stop())
        await asyncio.sleep(0)  # it begins
        ready, alive = await ask(where, "/readyz"), await ask(where, "/livez")
        status = await ask(where, "/api/v1/status")
        code, _ = await sending
        await stopping

    assert code == 250
    assert ready.status == 503
    assert ready.json["problems"][0]["reason"].startswith("it is stopping")
    assert alive.status == 200
    assert status.json["phase"] == "draining"


async def test_a_refused_key_is_unhealthy_and_does_not_keep_mail_out(tmp_path):
    """healthz names the credential and what SparkPost said; the spool takes the mail meanwhile."""
    async with (
        sandbox_with(tmp_path / "tls", ports=[Port(mode="auth-535")]) as sandbox,
        relay_to(sandbox, **keeping(tmp_path)) as relay,
    ):
        code, _ = await send(port_of(relay))
        health, ready = await ask(tcp_of(relay), "/healthz"), await ask(tcp_of(relay), "/readyz")
        credentials = (await ask(unix_of(relay), "/api/v1/credentials")).json["credentials"]
        metrics = await samples(tcp_of(relay))

    assert (code, ready.status, health.status) == (250, 200, 503)
    (problem,) = health.json["problems"]
    assert (problem["what"], problem["name"]) == ("credential", "default")
    assert "SMTP_Injection" in problem["reason"]
    assert "535" in problem["reason"]
    assert [(one["credential"], one["ok"]) for one in credentials] == [("default", False)]
    assert metrics["credential_ok", ("credential", "default")] == 0


async def test_blocked_ports_are_unhealthy_and_keep_mail_out_only_without_a_spool(tmp_path):
    """With a spool the mail waits there; without one there is no way for it."""
    async with sandbox_with(tmp_path / "tls") as sandbox:
        where = [port for _, port in sandbox.addresses]
    upstream = {"upstream": {"ports": where}}
    async with relay_to(sandbox, **keeping(tmp_path), **upstream) as kept:
        assert (await send(port_of(kept)))[0] == 250
        health, ready = await ask(tcp_of(kept), "/healthz"), await ask(tcp_of(kept), "/readyz")
        endpoints = (await ask(unix_of(kept), "/api/v1/endpoints")).json["endpoints"]
        metrics = await samples(tcp_of(kept))
    async with relay_to(sandbox, admin={"address": "127.0.0.1:0"}, **upstream) as without:
        assert (await send(port_of(without)))[0] == 451
        shut = await ask(tcp_of(without), "/readyz")

    assert (health.status, ready.status, shut.status) == (503, 200, 503)
    assert [(one["what"], one["name"]) for one in health.json["problems"]] == [("endpoint", "localhost")]
    assert not any(one["up"] for one in endpoints)
    assert metrics["endpoint_up", ("endpoint", f"localhost:{where[0]}")] == 0


async def test_the_port_that_was_passed_over_is_down(tmp_path):
    """Mail goes by the second port: the first is shown as down, with the reason, and health stays green."""
    async with (
        sandbox_with(tmp_path / "tls", ports=[Port(mode="no-starttls"), Port()]) as sandbox,
        relay_to(sandbox, **keeping(tmp_path)) as relay,
    ):
        await send(port_of(relay))
        first, second = (await ask(unix_of(relay), "/api/v1/endpoints")).json["endpoints"]
        health = await ask(tcp_of(relay), "/healthz")

    assert (first["up"], second["up"]) == (False, True)
    assert first["reason"] == f"mail goes by port {sandbox.addresses[1][1]} instead"
    assert second["connections"] == {"idle": 1, "busy": 0}
    assert health.status == 200


async def samples(where: str) -> dict[tuple, float]:
    """All samples, by name without prefix, then labels and values in turn."""
    answer = await ask(where, "/metrics")
    return {
        (sample.name.removeprefix("sparkpost_relay_"), *sorted(sample.labels.items())): sample.value
        for family in prometheus(answer.body.decode())
        for sample in family.samples
    }


async def test_metrics_tell_of_the_queue_and_the_upstream(tmp_path):
    """Messages by state, the age of the oldest, sessions by credential and endpoint."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        await send(port_of(relay), "tempfail@example.net")
        await send(port_of(relay))
        async with asyncio.timeout(10):  # the ledger's line comes a moment after the reply
            while not (counted := await samples(tcp_of(relay)))["queue_messages", ("state", "delivered")]:
                pass
        endpoint = f"localhost:{sandbox.addresses[0][1]}"

    assert counted["queue_messages", ("state", "queued")] == 1
    assert counted["queue_messages", ("state", "delivered")] == 1
    assert counted["queue_oldest_seconds",] > 0
    session = ("upstream_connections", ("credential", "default"), ("endpoint", endpoint), ("state", "idle"))
    assert counted[session] == 1
    assert counted["endpoint_up", ("endpoint", endpoint)] == 1
    assert counted["credential_ok", ("credential", "default")] == 1


async def test_a_session_in_use_is_busy(tmp_path):
    """While SparkPost thinks about a message; afterwards it is idle."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        sending = asyncio.create_task(send(port_of(relay), "slow-dot-1500ms@example.net"))
        await sandbox.wait_for(1)
        during = (await ask(tcp_of(relay), "/api/v1/status")).json["connections"]
        await sending
        after = (await ask(tcp_of(relay), "/api/v1/status")).json["connections"]

    assert (during, after) == ({"idle": 0, "busy": 1}, {"idle": 1, "busy": 0})


async def test_metrics_come_as_openmetrics_to_who_asks_for_it(tmp_path):
    """By the Accept field, as Prometheus does; both forms parse."""
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        await send(port_of(relay))
        new = await ask(tcp_of(relay), "/metrics", headers={"Accept": accept})
        old = await ask(tcp_of(relay), "/metrics")

    assert new.headers["content-type"].startswith("application/openmetrics-text")
    assert old.headers["content-type"].startswith("text/plain")
    assert new.body.endswith(b"# EOF\n")
    assert {family.name for family in openmetrics(new.body.decode())} >= {"sparkpost_relay_queue_messages"}
    assert any(family.name == "sparkpost_relay_messages" for family in prometheus(old.body.decode()))


def _bring_a_key(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.login("SMTP_Injection", OWN_KEY)
        client.sendmail("a@example.com", ["b@example.net"], CONTENT)


async def test_a_passthrough_key_has_no_health(tmp_path):
    """Its sessions are counted under one label, and whether it is good is not ours to judge."""
    sections = keeping(tmp_path) | {"listeners": [{"address": "127.0.0.1:0", "auth": "passthrough"}]}
    async with (
        sandbox_with(tmp_path / "tls", api_keys={OWN_KEY: None}) as sandbox,
        relay_to(sandbox, **sections) as relay,
    ):
        await asyncio.to_thread(_bring_a_key, port_of(relay))
        counted = await samples(tcp_of(relay))
        health = await ask(tcp_of(relay), "/healthz")

    judged = {dict(labels)["credential"] for name, *labels in counted if name == "credential_ok"}
    connected = {dict(labels)["credential"] for name, *labels in counted if name == "upstream_connections"}
    assert (judged, connected) == ({"default"}, {"passthrough"})
    assert health.status == 200


async def test_a_spool_that_cannot_be_read_leaves_the_rest(tmp_path):
    """Status and metrics are shown all the same, without the numbers that are not to be had."""

    async def broken():
        raise SpoolUnavailable("disk I/O error")

    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        relay.spool.stats = broken
        status = await ask(tcp_of(relay), "/api/v1/status")
        metrics = await ask(tcp_of(relay), "/metrics")
        page = await ask(unix_of(relay), "/api/v1/messages")

    assert status.json["spool"]["messages"] is None
    assert metrics.status == 200
    assert b"sparkpost_relay_queue_oldest_seconds NaN" in metrics.body
    assert page.status == 200
