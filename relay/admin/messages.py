"""Stored messages over HTTP: listed, shown, read and moved."""

import asyncio
from collections.abc import Iterator
from typing import Final

import orjson
from aiohttp import web

from relay.admin import entries
from relay.admin.access import Refusal
from relay.admin.desk import Desk
from relay.core.lifecycle import COMMANDS, Event, State

LONGEST_PAGE: Final = 500
USUAL_PAGE: Final = 100
LONGEST_SEARCH: Final = 200  # characters
_LAST: Final = 2**63 - 1

_COMMAND: Final = "|".join(COMMANDS)


class Messages:
    """The pages about single messages. `desk` is None without a spool."""

    def __init__(self, desk: Desk | None) -> None:
        self._at = desk

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/v1/messages", self.list),
            web.post("/api/v1/messages", self.move_many),
            web.get("/api/v1/messages/{id}", self.show),
            web.get("/api/v1/messages/{id}/content", self.content),
            web.post(f"/api/v1/messages/{{id}}/{{command:{_COMMAND}}}", self.move),
        ]

    @property
    def _desk(self) -> Desk:
        if self._at is None:
            raise Refusal(404, "this relay has no spool (spool.url: none)", "set spool.url to keep messages")
        return self._at

    async def list(self, request: web.Request) -> web.Response:
        desk = self._desk
        page = await desk.page(
            state=_state(request.query.get("state")),
            search=_search(request.query.get("q")),
            cursor=_cursor(request.query.get("cursor")),
            limit=_limit(request.query.get("limit")),
        )
        messages = [entries.summary(entry, desk.username(entry)) for entry in page.entries]
        return web.json_response({"messages": messages, "cursor": page.cursor})

    async def show(self, request: web.Request) -> web.Response:
        desk, queue_id = self._desk, request.match_info["id"]
        entry = await desk.entry(queue_id)
        return web.json_response(entries.detail(entry, desk.username(entry), await desk.header(queue_id)))

    async def content(self, request: web.Request) -> web.StreamResponse:
        """The message as it is sent, octet by octet."""
        desk, queue_id = self._desk, request.match_info["id"]
        entry = await desk.entry(queue_id)
        if await desk.header(queue_id) is None:
            raise Refusal(410, entries.content_gone(entry), "the message without it tells what became of it")
        content = await desk.content(queue_id)
        response = web.StreamResponse(
            headers={"Content-Type": "message/rfc822", "Content-Disposition": f'attachment; filename="{queue_id}.eml"'}
        )
        response.content_length = content.size
        await response.prepare(request)
        if request.method != "HEAD":
            try:
                await _send(response, content.chunks())
            except OSError:
                # It has gone, or cannot be read, half-way: whoever reads must not take it for the whole.
                request.protocol.force_close()
        return response

    async def move(self, request: web.Request) -> web.Response:
        queue_id = request.match_info["id"]
        state = await self._desk.move(queue_id, Event(request.match_info["command"]))
        return web.json_response({"id": queue_id, "state": state.value})

    async def move_many(self, request: web.Request) -> web.Response:
        """`{"command": …, "ids": […]}`: what became of each, in order."""
        desk = self._desk
        try:
            wish = orjson.loads(await request.read())  # says of all that is no JSON that it is none, however deep
        except ValueError:
            wish = None
        match wish:
            case {"command": str(command), "ids": [*ids]} if (
                command in COMMANDS and len(ids) <= LONGEST_PAGE and all(isinstance(one, str) for one in ids)
            ):
                moved = await desk.move_many(ids, Event(command))
                return web.json_response({"messages": [entries.outcome(one) for one in moved]})
        raise Refusal(
            400,
            "this is no wish that can be fulfilled",
            f'send {{"command": "{COMMANDS[0]}", "ids": ["ID", …]}} as JSON; commands: {", ".join(COMMANDS)};'
            f" at most {LONGEST_PAGE} ids",
        )


async def _send(response: web.StreamResponse, chunks: Iterator[bytes]) -> None:
    """Read off the loop, write as fast as it is taken; raises OSError where it cannot be read."""
    while octets := await asyncio.to_thread(next, chunks, b""):
        await response.write(octets)


def _state(text: str | None) -> State | None:
    if not text:
        return None
    try:
        return State(text)
    except ValueError:
        raise Refusal(400, "state is none that a message can be in", f"one of {', '.join(State)}") from None


def _search(text: str | None) -> str | None:
    if text is not None and len(text) > LONGEST_SEARCH:
        raise Refusal(400, "q is too long", f"at most {LONGEST_SEARCH} characters")
    return text or None


def _cursor(text: str | None) -> str | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= _LAST):
        raise Refusal(400, "cursor is none that this relay has given", "take it from the page before, or leave it out")
    return text


def _limit(text: str | None) -> int:
    if not text:
        return USUAL_PAGE
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= LONGEST_PAGE):
        raise Refusal(400, "limit is no number that can be given", f"a whole number from 1 to {LONGEST_PAGE}")
    return int(text)
