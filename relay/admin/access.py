"""Who may see and do what (design, section 3.4), and how a refusal is put.

Over TCP, everybody who can connect sees health, metrics and status; everything else wants the token. On the Unix
socket, root and the relay's own user may do everything, and nobody else may do anything. A name in `Host` that is not
ours is refused: a web page in a browser on this host could have made it point here (DNS rebinding).
"""

import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from aiohttp import web

from relay.admin import dashboard
from relay.admin.desk import MappingGone
from relay.core.lifecycle import IllegalTransition
from relay.core.secret import Secret
from relay.core.spooled import SpoolUnavailable, UnknownMessage, Unreadable
from relay.observe import log as events
from relay.sockets import peer_uid

log = structlog.get_logger()

PUBLIC: Final = frozenset({"/livez", "/readyz", "/healthz", "/metrics", "/api/v1/status", *dashboard.FILES})
_SCHEME: Final = "Bearer "

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refusal(Exception):
    """An answer that is not what was asked for: its status, what is wrong, and what would help."""

    def __init__(self, status: int, error: str, remedy: str, **headers: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.remedy = remedy
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Guard:
    """Lets a request through, or raises Refusal."""

    def __init__(self, hostname: str, token: Secret | None) -> None:
        self._hostname = hostname.lower()
        self._token = token

    def check(self, request: web.Request) -> None:
        sock = request.transport.get_extra_info("socket") if request.transport is not None else None
        if sock is not None and sock.family == socket.AF_UNIX:
            self._check_peer(sock)
            return
        for host in request.headers.getall("Host", []):
            self._check_host(host)
        # What does not exist may be said to be so.
        known = request.match_info.http_exception is None
        if known and not (request.path in PUBLIC and request.method in ("GET", "HEAD")):
            self._check_token(request.headers.get("Authorization", ""))

    def _check_peer(self, sock: socket.socket) -> None:
        uid = peer_uid(sock)
        if uid not in (0, os.geteuid()):
            raise Refusal(403, f"user {uid} may not use this socket", f"ask as root or as user {os.geteuid()}")

    def _check_host(self, host: str) -> None:
        name = _name_of(host)
        if name in ("localhost", self._hostname) or _is_address(name):
            return
        raise Refusal(
            421,
            "this is not a name of this relay",
            f"use an IP address, localhost, or the configured hostname ({self._hostname})",
        )

    def _check_token(self, authorization: str) -> None:
        if self._token is None:
            raise Refusal(
                403,
                "without a token this is not shown over TCP",
                "set admin.token, or use the Unix socket of the relay",
            )
        given = authorization[len(_SCHEME) :] if authorization[: len(_SCHEME)].lower() == _SCHEME.lower() else ""
        # Secrets are compared by digest, in constant time. Octets that are no text come as half characters.
        if Secret(given.strip().encode(errors="replace").decode()) != self._token:
            raise Refusal(
                401,
                "this needs the token of the relay",
                "send `Authorization: Bearer TOKEN` with the value of admin.token, or use the Unix socket of the relay",
                WWW_Authenticate="Bearer",
            )


def _name_of(host: str) -> str:
    """The name in a Host field, without its port."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name = host.partition(":")[0] if host.count(":") == 1 else host
    return name.removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def problem(status: int, error: str, remedy: str, headers: dict[str, str] | None = None) -> web.Response:
    """An answer that says what is wrong and what would help."""
    body: dict[str, Any] = {"error": error, "remedy": remedy}
    return web.json_response(body, status=status, headers=headers)


def gate(guard: Guard) -> Any:
    """The middleware: who asks is checked, and whatever goes wrong is answered in words."""

    @web.middleware
    async def checked(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            guard.check(request)
            return await handler(request)
        except Refusal as refusal:
            return problem(refusal.status, refusal.error, refusal.remedy, refusal.headers)
        except web.HTTPException as error:
            return _usual(request, error)
        except UnknownMessage as error:
            return problem(404, str(error), "the list of messages shows what there is")
        except IllegalTransition as error:
            return problem(409, f"{request.match_info.get('id')} cannot be moved: {error}", "see its state first")
        except MappingGone as error:
            return problem(409, str(error), "change the configuration, restart the relay, and try again")
        except Unreadable as error:
            return problem(500, str(error), "look into the quarantine beside the spool's file")
        except SpoolUnavailable as error:
            return problem(503, f"the spool cannot do this now: {error}", "see spool.problem in /api/v1/status")
        except Exception:
            log.exception(events.INTERNAL_ERROR, path=request.path)
            return problem(500, "a defect of the relay", "its log says what happened; please report it")

    return checked


def _usual(request: web.Request, error: web.HTTPException) -> web.Response:
    match error:
        case web.HTTPNotFound():
            return problem(404, f"there is nothing at {request.path}", "docs/monitoring.md lists the paths")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            return problem(405, f"{error.method} is not for {request.path}", f"use {allowed}", {"Allow": allowed})
        case web.HTTPRequestEntityTooLarge():
            return problem(413, "the request is too large", "send fewer queue ids at once")
        case _:
            return problem(error.status, error.reason, "docs/monitoring.md lists the paths")


async def mark(request: web.Request, response: web.StreamResponse) -> None:
    """What every answer carries: nobody may keep it or take it for something else."""
    response.headers["Server"] = "sparkpost-relay"
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
