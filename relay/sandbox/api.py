"""The HTTP API by its conventions: who may ask, for what, and what is answered, errors on demand included.

Of SparkPost's resources there is one, `POST /api/v1/transmissions`. Errors on demand come by the port's mode or by the
local part of a recipient's address:

    address                      what is answered
    http-NNN@, http-NNN-CODE@    that status, with SparkPost's code where one is given: http-503@, http-422-3020@
    quota@                       420, 2102 Exceed Sending Limit (daily)
    tempfail@                    503, 1900
    permfail@                    200 with `errors`: the recipient is rejected
    disconnect@                  nothing: the connection drops, and nothing was accepted
    silent@, gibberish@          nothing, or octets that are no HTTP; nothing was accepted
    disconnect-after-dot@        accepted (as ambiguous), but the connection drops instead of the 200
    silent-after-dot@            accepted (as ambiguous), but the 200 never comes
    gibberish-after-dot@         accepted (as ambiguous), but the answer cannot be read
    cut-after-dot@               accepted (as ambiguous), but the connection drops in the midst of the 200
    slow-dot@, slow-dot-800ms@   accepted, the 200 comes late (3 s, or as said)
"""

import base64
import binascii
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from relay.sandbox.answers import Then
from relay.sandbox.certificates import Kind
from relay.sandbox.faults import GIBBERISH
from relay.sandbox.records import Accepted, LoginAttempt, Session
from relay.sandbox.rules import MAX_SUBACCOUNT, Login, Rules
from relay.sandbox.transmissions import ApiError, Transmission, read

_log = logging.getLogger(__name__)

PREFIX: Final = "/api/v1"
_SLOW: Final = 3000  # milliseconds
_STATUS_MAGIC = re.compile(r"http-([2-5]\d\d)(?:-(\d{4}))?")
_SUBACCOUNT = re.compile(r"[0-9]{1,10}")
_SLOW_MAGIC = re.compile(r"slow-dot(?:-(\d{1,6})ms)?")
_UNAUTHORIZED: Final = ApiError(401, None, "Unauthorized.")
_QUOTA: Final = ApiError(420, "2102", "Exceed Sending Limit (daily)")
_MESSAGES: Final[Mapping[int, tuple[str | None, str]]] = {
    401: (None, "Unauthorized."),
    403: ("1100", "permission denied"),
    420: ("2102", "Exceed Sending Limit (daily)"),
    429: (None, "Too many requests"),
    500: ("1500", "Internal Server Error"),
    503: ("1900", "Unable to contact authorization service."),
}


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request: header names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered: a document under a status, or fixed octets, after `delay` seconds; then `then`."""

    status: int = 200
    document: Mapping[str, Any] = field(default_factory=dict)
    octets: bytes | None = None
    then: Then = Then.GO_ON
    delay: float = 0.0

    @property
    def confirms(self) -> bool:
        """Whether it is a success that a client can read."""
        return self.status == HTTPStatus.OK and self.octets is None

    def wire(self, *, close: bool, to_head: bool) -> bytes:
        """The octets of the answer. What answers HEAD has no body, nor has 204 or 304 (RFC 9110 §6.4.1)."""
        if self.octets is not None:
            return self.octets
        empty = self.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
        body = b"" if empty else json.dumps(self.document).encode()
        reason = HTTPStatus(self.status).phrase if self.status in set(HTTPStatus) else "Unknown"
        lines = [
            f"HTTP/1.1 {self.status} {reason}",
            "Content-Type: application/json",
            *([] if empty else [f"Content-Length: {len(body)}"]),
            f"Connection: {'close' if close else 'keep-alive'}",
        ]
        return "\r\n".join([*lines, "", ""]).encode("ascii") + (b"" if to_head else body)

    @classmethod
    def of(cls, error: ApiError) -> "Response":
        return cls(error.status, error.document())


def _status(status: int, code: str | None = None) -> Response:
    known, message = _MESSAGES.get(status, (None, "as the sandbox was asked"))
    return Response.of(ApiError(status, code or known, message))


_DROPPED: Final = Response(octets=b"", then=Then.DROP)
_SILENCE: Final = Response(octets=b"", then=Then.HANG)
_GIBBERISH: Final = Response(octets=GIBBERISH.reply, then=Then.CLOSE)
_CUT: Final = Response(octets=b'HTTP/1.1 200 OK\r\nContent-Length: 120\r\n\r\n{"results": {"total_rej', then=Then.DROP)
_INSTEAD: Final[Mapping[str, Response]] = {
    "quota": Response.of(_QUOTA),
    "tempfail": _status(503),
    "disconnect": _DROPPED,
    "silent": _SILENCE,
    "gibberish": _GIBBERISH,
}
_AFTERWARDS: Final[Mapping[str, Response]] = {
    "disconnect-after-dot": _DROPPED,
    "silent-after-dot": _SILENCE,
    "gibberish-after-dot": _GIBBERISH,
    "cut-after-dot": _CUT,
}


@dataclass(frozen=True, slots=True)
class HttpMode:
    """How a port differs from a healthy one: `instead` of any answer, or `afterwards`, once a message is accepted."""

    meaning: str
    instead: Response | None = None
    afterwards: Response | None = None
    certificate: Kind = Kind.GOOD
    delay: float = 0.0


HTTP_MODES: Final[Mapping[str, HttpMode]] = MappingProxyType(
    {
        "normal": HttpMode("healthy"),
        "silent": HttpMode("takes requests and never answers", instead=_SILENCE),
        "drop": HttpMode("takes requests and drops the connection", instead=_DROPPED),
        "gibberish": HttpMode("answers with octets that are no HTTP", instead=_GIBBERISH),
        "no-response": HttpMode("accepts, and drops the connection instead of the 200", afterwards=_DROPPED),
        "slow": HttpMode("every answer comes 1 s late", delay=1.0),
        "wrong-name": HttpMode("shows a certificate for another name", certificate=Kind.WRONG_NAME),
        "expired": HttpMode("shows an expired certificate", certificate=Kind.EXPIRED),
        "untrusted": HttpMode("shows a certificate of an unknown CA", certificate=Kind.UNTRUSTED),
    }
    | {
        str(status): HttpMode(f"{status} to every request", instead=_status(status))
        for status in (401, 403, 404, 420, 429, 500, 502, 503, 504)
    }
)


class Api:
    """Answers requests. new_id: a fresh transmission id. deposit: takes each accepted message before its 200."""

    def __init__(self, rules: Rules, new_id: Callable[[], str], deposit: Callable[[Accepted], None]) -> None:
        self._rules = rules
        self._new_id = new_id
        self._deposit = deposit

    def answer(self, request: Request, mode: HttpMode, session: Session) -> Response:
        """The answer to one request on a connection."""
        if mode.instead is not None:
            return replace(mode.instead, delay=mode.delay)
        try:
            login = self._login(request.headers, session)
            _check_resource(request)
            if login.api_key in self._rules.smtp_only_keys:
                raise ApiError(403, "1100", "permission denied")
            response = self._transmit(read(request.body, self._rules), login, mode, session)
        except ApiError as error:
            response = Response.of(error)
        except OSError as error:
            _log.error("an accepted message could not be stored: %s", error)
            response = _status(500)
        return replace(response, delay=response.delay + mode.delay)

    def _login(self, headers: Mapping[str, str], session: Session) -> Login:
        """Who asks: the raw key, or Basic with the key as user name (fact sheet 3.1)."""
        api_key = _key(headers.get("authorization", ""))
        named = headers.get("x-msys-subaccount")
        if named is not None and not (_SUBACCOUNT.fullmatch(named) and int(named) <= MAX_SUBACCOUNT):
            raise ApiError(422, "1300", "invalid data format/type", "X-MSYS-SUBACCOUNT needs to be a number")
        login = self._rules.http_login(api_key, int(named or 0) or None)
        session.logins.append(LoginAttempt("", "HTTP", accepted=login is not None))
        if login is None:
            raise _UNAUTHORIZED
        return login

    def _transmit(self, wanted: Transmission, login: Login, mode: HttpMode, session: Session) -> Response:
        """Accept, unless an address asks for an error."""
        names = [address.rpartition("@")[0].partition("+")[0].lower() for address in wanted.recipients]
        for name in names:
            if name in _INSTEAD:
                return _INSTEAD[name]
            if (asked := _STATUS_MAGIC.fullmatch(name)) is not None:
                return _status(int(asked[1]), asked[2])
        named = list(zip(wanted.recipients, names, strict=True))
        good = tuple(one for one, name in named if name != "permfail")
        usual = self._results(len(good), [one for one, name in named if name == "permfail"] + list(wanted.rejected))
        if not good:
            return usual
        answer = next((_AFTERWARDS[name] for name in names if name in _AFTERWARDS), mode.afterwards or usual)
        delays = [
            _SLOW if asked[1] is None else int(asked[1]) / 1000 for asked in map(_SLOW_MAGIC.fullmatch, names) if asked
        ]
        session.messages += 1
        self._deposit(
            Accepted(
                content=wanted.content,
                reverse_path=wanted.return_path,
                recipients=good,
                mail_parameters={},
                auth_user=login.user,
                api_key=login.api_key,
                subaccount=login.subaccount,
                port=session.port,
                connection=session.number,
                token=usual.document["results"]["id"],
                received_at=datetime.now(UTC),
                ambiguous=not answer.confirms,
                via="http",
                transmission=wanted.fields,
            )
        )
        return replace(answer, delay=max(delays, default=0.0))

    def _results(self, accepted: int, rejected: list[str]) -> Response:
        results: dict[str, Any] = {
            "total_rejected_recipients": len(rejected),
            "total_accepted_recipients": accepted,
            "id": self._new_id(),
        }
        if not rejected:
            return Response(document={"results": results})
        # Partial rejection is a 200 with errors (fact sheet 3.2).
        results["rcpt_to_errors"] = [
            {"message": "required field is missing or invalid", "description": f"{one} is rejected", "code": "1300"}
            for one in rejected
        ]
        errors = [{"message": "transmission created, but with validation errors", "code": "2000"}]
        return Response(document={"results": results, "errors": errors})


def _key(authorization: str) -> str:
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "basic":
        return authorization
    try:
        return base64.b64decode(rest, validate=True).decode().partition(":")[0]
    except (binascii.Error, ValueError):
        return ""


def _check_resource(request: Request) -> None:
    """A trailing slash is no other resource."""
    path = request.target.partition("?")[0].removesuffix("/")
    if path != f"{PREFIX}/transmissions":
        raise ApiError(404, "1600", "resource not found", f"Resource not found: {path}")
    if request.method != "POST":
        raise ApiError(405, "1102", "method not allowed")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "1700", "unsupported media type", "Content-Type needs to be application/json")
