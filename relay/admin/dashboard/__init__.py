"""The dashboard at `/`: one page for people. It holds no data itself and asks the same API as everybody else.

The page, its style and its script are three files, served as they are. The token that opens messages is typed into the
page and stays in its memory; a policy keeps the browser from loading or sending anything elsewhere.
"""

from pathlib import Path
from typing import Final

from aiohttp import web

_HERE: Final = Path(__file__).parent
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)
FILES: Final = {
    "/": ("index.html", "text/html"),
    "/dashboard.css": ("dashboard.css", "text/css"),
    "/dashboard.js": ("dashboard.js", "text/javascript"),
}


def routes() -> list[web.RouteDef]:
    return [web.get(path, _file) for path in FILES]


async def _file(request: web.Request) -> web.Response:
    name, content_type = FILES[request.path]
    return web.Response(
        body=(_HERE / name).read_bytes(),  # a few kilobytes, read when somebody looks
        content_type=content_type,
        charset="utf-8",
        headers={"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"},
    )
