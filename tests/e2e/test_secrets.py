"""No secret is ever shown: log records, replies and printed pages are searched for them, raw and in base64."""

import asyncio
import base64
import io
import smtplib

from relay.config import dump, load
from relay.observe import log
from relay.sandbox import Port
from tests.support.running import KEY, port_of, relay_to, sandbox_with

PASSWORD = "correct horse battery staple"
WRONG = "wrong password of a user"
OWN_KEY = "fedcba9876543210fedcba9876543210fedcba98"
SECRETS = [KEY, PASSWORD, PASSWORD.replace(" ", "-"), WRONG, OWN_KEY]


def shapes(secret: str) -> set[str]:
    """The secret, and its base64 at each of the three offsets it can have within a longer text."""
    found = {secret}
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + secret.encode()).decode()
        found.add(encoded[4 if offset else 0 : -4])
    return found


def assert_clean(text: str) -> None:
    for secret in SECRETS:
        for shape in shapes(secret):
            assert shape.lower() not in text.lower()


class Client:
    """smtplib, with everything the relay says kept."""

    def __init__(self, port: int) -> None:
        self.heard = ""
        self.smtp = smtplib.SMTP("127.0.0.1", port, timeout=30)

    def say(self, *lines: str) -> None:
        for line in lines:
            code, text = self.smtp.docmd(line)
            self.heard += f"{code} {text.decode()}\n"


def encoded(*parts: str) -> str:
    return base64.b64encode("\0".join(parts).encode()).decode()


def misuse(port: int, passthrough: int) -> str:
    """Logins right and wrong, secrets where they do not belong, in every way a client might put them."""
    client = Client(port)
    client.say("EHLO c", f"AUTH PLAIN {encoded('', 'app', WRONG)}", f"AUTH PLAIN {encoded('', KEY, PASSWORD)}")
    client.say("AUTH LOGIN", base64.b64encode(b"app").decode(), base64.b64encode(PASSWORD.encode()).decode())
    client.say(
        PASSWORD.replace(" ", "-"),
        base64.b64encode(PASSWORD.encode()).decode(),
        "MAIL FROM:<a@example.com>",
        "RCPT TO:<b@example.net>",
        "DATA",
    )
    client.smtp.send(b"From: a@example.com\r\n\r\nx\r\n.\r\n")
    client.heard += str(client.smtp.getreply())
    own = Client(passthrough)
    own.say("EHLO c", f"AUTH PLAIN {encoded('', 'SMTP_Injection+5', OWN_KEY)}", "MAIL FROM:<a@example.com>")
    own.say("RCPT TO:<b@example.net>", "DATA")
    own.smtp.send(b"From: a@example.com\r\n\r\nx\r\n.\r\n")
    own.heard += str(own.smtp.getreply())
    client.smtp.close()
    own.smtp.close()
    return client.heard + own.heard


async def test_no_log_record_and_no_reply_shows_a_secret(tmp_path):
    """At debug level, with good and bad logins, on a good and on a refusing SparkPost."""
    record = io.StringIO()
    log.configure(form="json", level="debug", addresses="plain", stream=record)
    sections = {
        "listeners": [
            {"address": "127.0.0.1:0"},
            {"name": "own", "address": "127.0.0.1:0", "auth": "passthrough"},
        ],
        "identities": [
            {"name": "app", "match": {"login": "app"}, "password": PASSWORD},
            {"name": "default", "match": {}},
        ],
    }
    heard = ""
    for mode in ("normal", "auth-535", "421-at-mail"):
        async with (
            sandbox_with(tmp_path / mode, ports=[Port(mode=mode)], api_keys={KEY: None, OWN_KEY: None}) as sandbox,
            relay_to(sandbox, **sections) as relay,
        ):
            heard += await asyncio.to_thread(misuse, port_of(relay), port_of(relay, "own"))

    assert "250 2.0.0 OK" in heard.replace("(250, b'", "250 ")
    assert '"event":"link.auth"' in record.getvalue()
    assert_clean(heard)
    assert_clean(record.getvalue())


def test_no_page_shows_a_secret(tmp_path):
    """What check-config prints, and what the loaded configuration looks like to a debugger."""
    path = tmp_path / "relay.yaml"
    path.write_text(
        f'credentials: {{default: {{api_key: "{KEY}"}}}}\n'
        f'identities: [{{name: app, match: {{login: app}}, password: "{PASSWORD}"}}]\n'
        f'admin: {{token: "{OWN_KEY}"}}\n'
    )
    path.chmod(0o600)
    loaded = load(str(path), {})

    assert_clean(dump(loaded))
    assert_clean(repr(loaded))
    assert_clean(loaded.config.model_dump_json())
