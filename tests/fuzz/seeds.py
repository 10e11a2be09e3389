"""What inputs are made of: the real messages, the dialogue scripts, and the words of each grammar."""

import functools
from pathlib import Path

TESTS = Path(__file__).parents[1]


@functools.cache
def messages() -> list[bytes]:
    """The corpus, with CRLF, each cut to what a fuzzer can turn over quickly."""
    files = sorted((TESTS / "corpus").glob("*.eml"))
    return [b"\r\n".join(file.read_bytes()[:1500].splitlines()) + b"\r\n" for file in files]


@functools.cache
def dialogues() -> list[bytes]:
    """What the clients of the dialogue scripts say, from the first to the last line."""
    return [_client(file.read_text()) for file in sorted((TESTS / "dialog").glob("*.dlg"))]


def _client(script: str) -> bytes:
    said = b""
    for line in script.splitlines():
        if line.startswith("C: "):
            said += line[3:].encode() + b"\r\n"
        elif line.startswith("R: "):
            said += line[3:].encode().decode("unicode_escape").encode("latin-1")
    return said


LINE_ENDS = [b"\r\n", b"\n", b"\r", b"\r\n.\r\n", b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n..", b".", b"\0"]
COMMANDS = [
    b"EHLO ",
    b"HELO x\r\n",
    b"MAIL FROM:<a@example.com>\r\n",
    b"RCPT TO:<b@example.net>\r\n",
    b"DATA\r\n",
    b"AUTH PLAIN ",
    b"AUTH LOGIN\r\n",
    b"AGFwcABjb3JyZWN0IGhvcnNl\r\n",
    b"YXBw\r\n",
    b"*\r\n",
    b"=",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"QUIT\r\n",
    b"STARTTLS\r\n",
    b"VRFY ",
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01",
    b" ",
    b"\t",
    b"x" * 600,
]
PATHS = [
    b"<", b">", b"@", b":", b",", b".", b'"', b"\\", b"[", b"]", b"(", b")", b";", b" ", b"\t", b"=", b"-", b"_", b"*",
    b"a", b"b.c", b"example.com", b"[192.0.2.7]", b"[IPv6:2001:db8::7]", b"@x,@y:", b'"a b"', b"\xc3\xa9", b"\xe9",
    b"SIZE=100", b"BODY=8BITMIME", b"NOTIFY=NEVER", b"ORCPT=rfc822;a+2Bb", b"SMTPUTF8", b"RET=HDRS", b"AUTH=<>",
]  # fmt: skip
REPLIES = [
    b"250", b"250 ", b"250-", b"220 ", b"354 ", b"421 ", b"452 ", b"550 ", b"535-", b"2.0.0 ", b"5.7.1 ", b"4.4.9999",
    b"\r\n", b"\n", b"\r", b" ", b"-", b"ok", b"199 ", b"600 ", b"25", b"\xff", b"\0", b"\xb2\xb3\xb9 ",
]  # fmt: skip
FIELDS = [
    b"From: a@example.com\r\n",
    b"From",
    b"To: b@example.net, c@example.net\r\n",
    b"Bcc: d@example.net\r\n",
    b"Resent-Bcc: d@example.net\r\n",
    b"bcc:\r\n e@example.net\r\n",
    b"Subject: =?utf-8?Q?a?=\r\n",
    b"Received: from x by y\r\n",
    b"X-MSYS-API: {}\r\n",
    b"X-Binding : b\r\n",
    b"From x Thu Jan  1 00:00:00 1970\r\n",
    b"\r\n\r\n",
    b"\r\n ",
    b"\r\n\t",
    b": ",
    b" :",
]
WISHES = [
    b' {"campaign_id": "x", "tags": ["a", "b"], "metadata": {"a": [1, null, "\xc3\xbc"]}}',
    b'{"options":{"transactional":true,"click_tracking":false},"substitution_data":{}}',
    b'{"cc":[],"bcc":["x@example.org"],"options":{"ip_pool":"p"}}',
]
JSON = [
    b"{", b"}", b"[", b"]", b'"', b":", b",", b" ", b"\\", b"\\u00fc", b"\\ud800", b"\xc3\xbc", b"\xff", b"\n", b"\t",
    b"true", b"null", b"NaN", b"-1e999", b"1" * 5000, b"[" * 3000, b'"x":', b'"tags":', b'"options":', b'"metadata":',
    b'"cc":', b'"inline_css":', b"x" * 1000,
]  # fmt: skip
SETTINGS = [
    b"localhost:2525", b"[::1]:25", b"0.0.0.0:25", b"10.0.0.0/8", b"fd00::/8", b"127.0.0.1", b"relay.example.com", b"/",
    b"https://", b"http://", b"api.sparkpost.com", b"/api/v1", b"?", b"#", b"%", b"::", b":", b"[", b"]", b"@", b"*",
    b"{subaccount}", b"{", b"}", b"<>", b"65536", b"0", b"-", b".", b" ", b"\xe9", b"\xb2", b"\0", b"\n",
]  # fmt: skip
PROXIED = [
    b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 25\r\nEHLO x\r\n",
    b"PROXY TCP6 2001:db8::1 2001:db8::2 5000 25\r\n",
    b"PROXY UNKNOWN\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\1\xc0\0\2\2\x13\x88\0\x19EHLO x\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
]
PROXY = [
    b"PROXY ", b"TCP4", b"TCP6", b"UNKNOWN", b" ", b"\r\n", b"\n", b"192.0.2.1", b"::1", b"25", b"65536", b"\xb2",
    b"\r\n\r\n\0\r\nQUIT\n", b"\x21", b"\x20", b"\x11", b"\0", b"\0\x0c", b"\xff\xff",
]  # fmt: skip
