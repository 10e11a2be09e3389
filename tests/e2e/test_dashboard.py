"""The dashboard in a real browser: what an operator sees, and that nothing of it needs, keeps or leaks a secret."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, Route, async_playwright, expect

from relay.app import Relay
from relay.core.lifecycle import State
from relay.sandbox import Port, Sandbox
from tests.support.admin import TOKEN, ask, fill, keeping, tcp_of, unix_of
from tests.support.client import send
from tests.support.ledger import settled
from tests.support.running import port_of, relay_to, sandbox_with

CHROMIUM = shutil.which("chromium")
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian package chromium)")
EVIL = b'From: a@example.com\r\nSubject: <img src=x onerror="document.title=1">\r\n\r\nx\r\n'


@contextlib.asynccontextmanager
async def watched(tmp_path: Path, **sections: Any) -> AsyncIterator[tuple[Sandbox, Relay, Page]]:
    """A relay, and a browser that has its page open; what the page complains of fails the test."""
    ports = [Port(mode="drop")]
    async with (
        sandbox_with(tmp_path / "tls", ports=ports) as sandbox,
        relay_to(sandbox, **keeping(tmp_path) | sections) as relay,
        async_playwright() as playwright,
    ):
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if "Security Policy" in said.text else None)
        await page.goto(f"http://{tcp_of(relay)}/")
        yield sandbox, relay, page
        await browser.close()
        assert complaints == []


async def unlock(page: Page, token: str = TOKEN) -> None:
    await page.get_by_label("Token of the relay").fill(token)
    await page.get_by_role("button", name="Open").click()


@pytest.mark.parametrize("path", ["/", "/dashboard.css", "/dashboard.js"])
async def test_the_page_is_the_same_for_everybody(tmp_path, path):
    """It holds nothing of the relay, so it needs no token; the browser may load and ask nothing elsewhere."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        answer = await ask(tcp_of(relay), path)
        same = await ask(unix_of(relay), path)
        posted = await ask(tcp_of(relay), path, "POST")

    assert (answer.status, same.body) == (200, answer.body)
    assert posted.status in (401, 405)
    assert b"relay.test" not in answer.body
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"} <= set(policy)
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"


@in_a_browser
async def test_whether_mail_flows_is_seen_at_once(tmp_path):
    """Without a token: the verdict, what is not well, and how much waits; it changes by itself."""
    async with watched(tmp_path) as (sandbox, relay, page):
        await expect(page.locator("#verdict")).to_have_text("Mail flows.")
        await send(port_of(relay))
        await expect(page.locator("#verdict")).to_have_text("Mail is taken, but not all of it can go now.")
        await expect(page.locator("#problems li")).to_contain_text("endpoint localhost: ")
        await expect(page.locator("#tiles div", has_text="queued")).to_contain_text("1")
        sandbox.set_mode("normal")
        await expect(page.locator("#verdict")).to_have_text("Mail flows.", timeout=30_000)
        inside = await page.locator("#inside").is_visible()

    assert not inside


@in_a_browser
async def test_messages_need_the_token(tmp_path):
    """A wrong one is refused in words; the right one is kept by the open page alone, and shown nowhere."""
    async with watched(tmp_path) as (_, relay, page):
        await send(port_of(relay))
        await unlock(page, "guess")
        await expect(page.locator("#refusal")).to_contain_text("this needs the token of the relay")
        await unlock(page)
        await expect(page.locator("#messages tr")).to_contain_text("b@example.net")
        await expect(page.locator("#endpoints tr")).to_contain_text("localhost:")
        await expect(page.locator("#credentials tr")).to_contain_text("default")
        kept = await page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])")
        html = await page.content()
        await page.reload()
        await expect(page.locator("#unlock")).to_be_visible()

    assert TOKEN not in kept + html


@in_a_browser
async def test_messages_are_seen_and_moved(tmp_path):
    """Found, read, held, let go, and at last delivered; what is in a message is text, whatever it looks like."""
    async with watched(tmp_path) as (sandbox, relay, page):
        await send(port_of(relay), "c@example.net", content=EVIL)
        await send(port_of(relay), "d@example.net")
        await unlock(page)
        await page.get_by_label("Search").fill("c@example.net")
        await page.get_by_role("button", name="Look").click()
        row = page.locator("#messages tr")
        await expect(row).to_have_count(1)
        await row.locator("button").click()
        await expect(page.locator("#header")).to_contain_text('<img src=x onerror="document.title=1">')
        await expect(page.locator("#history tr")).not_to_have_count(0)

        await page.get_by_label("Search").fill("")
        await page.get_by_role("button", name="Look").click()
        await expect(row).to_have_count(2)
        await page.get_by_label("Choose all that are shown").check()
        await page.get_by_role("button", name="Hold").click()
        await expect(page.locator("#outcome")).to_have_text("hold: 2 of 2")
        await expect(page.locator("#nothing")).to_be_visible()
        held = await settled(relay, lambda found: all(one.state is State.HELD for one in found))

        sandbox.set_mode("normal")
        await page.locator("#tiles div", has_text="held").click()
        await expect(row).to_have_count(2)
        await page.get_by_label(f"Choose {held[0].queue_id}").check()
        await page.get_by_role("button", name="Release").click()
        await expect(page.locator("#outcome")).to_have_text("release: 1 of 1")
        page.on("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
        await page.get_by_label(f"Choose {held[1].queue_id}").check()
        await page.get_by_role("button", name="Delete").click()
        await expect(page.locator("#outcome")).to_have_text("delete: 1 of 1")
        entries = await settled(relay, lambda found: found[0].state is State.DELIVERED)
        title = await page.title()

    assert [one.state for one in entries] == [State.DELIVERED, State.DELETED]
    assert [one.recipients for one in sandbox.accepted] == [("c@example.net",)]
    assert "relay.test" in title


@in_a_browser
async def test_a_relay_that_is_gone_is_told_of(tmp_path):
    """Figures of a while ago are not shown as if they were true."""
    async with watched(tmp_path) as (_, relay, page):
        await expect(page.locator("#verdict")).to_have_text("Mail flows.")
        await relay.admin.stop()
        await expect(page.locator("#verdict")).to_contain_text("The relay does not answer", timeout=30_000)


async def unlocked(page: Page) -> None:
    """The page anew, with a clock that the test turns, and open."""
    await page.clock.install()
    await page.reload()
    await unlock(page)
    await expect(page.locator("#inside")).to_be_visible()
    await expect(page.locator("#credentials tr")).to_have_count(1)


async def fill_new(folder: Path, count: int) -> None:
    """A spool with so many messages."""
    async with sandbox_with(folder / "tls") as sandbox, relay_to(sandbox, **keeping(folder)):
        pass
    fill(folder / "spool.db", count)


async def a_round(page: Page) -> None:
    """The page looks once more by itself at ports and messages."""
    async with page.expect_response("**/api/v1/messages?*") as answer:
        await page.clock.run_for(5000)
    await (await answer.value).finished()
    await page.evaluate("fetch('api/v1/status').then((answer) => answer.json())")  # the page has had its turn


@in_a_browser
async def test_what_an_action_came_to_stays_to_be_read(tmp_path):
    """The page's own watch says nothing over it."""
    async with watched(tmp_path) as (_, relay, page):
        await send(port_of(relay))
        await unlocked(page)
        await page.get_by_label("Choose all that are shown").check()
        await page.get_by_role("button", name="Hold").click()
        await expect(page.locator("#outcome")).to_have_text("hold: 1 of 1")
        for _ in range(2):
            await a_round(page)
        told = await page.locator("#outcome").text_content()

    assert told == "hold: 1 of 1"


@in_a_browser
async def test_one_watch_goes_on_however_often_it_was_unlocked(tmp_path):
    """Each time the token was refused in between, as when it has changed."""
    async with watched(tmp_path) as (_, _, page):
        await unlocked(page)
        for _ in range(4):
            await page.route(
                "**/api/v1/messages?*", lambda route: route.fulfill(status=401, json={"error": "no"}), times=1
            )
            await page.get_by_role("button", name="Look").click()
            await expect(page.locator("#refusal")).to_have_text("no")
            await unlock(page)
            await expect(page.locator("#inside")).to_be_visible()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await a_round(page)
        await a_round(page)

    assert sum(url.endswith("/endpoints") for url in asked) == 2


@in_a_browser
async def test_the_keyboard_keeps_its_place_and_nothing_is_read_aloud_twice(tmp_path):
    """While the page looks again and again, and a message comes meanwhile."""
    async with watched(tmp_path) as (_, relay, page):
        await send(port_of(relay), "c@example.net")
        (message,) = await settled(relay, lambda found: found[0].state is State.QUEUED)
        await unlocked(page)
        await expect(page.locator("#verdict")).to_have_text("Mail is taken, but not all of it can go now.")
        await page.evaluate(
            "new MutationObserver((all) => { window.said = (window.said ?? 0) + all.length; })"
            ".observe(document.getElementById('health'), { childList: true, subtree: true, characterData: true })"
        )
        opens = page.get_by_role("button", name=message.queue_id)
        await opens.focus()
        await a_round(page)
        await expect(opens).to_be_focused()
        await send(port_of(relay), "d@example.net")
        await a_round(page)
        await expect(page.locator("#messages tr")).to_have_count(2)
        await expect(opens).to_be_focused()
        said = await page.evaluate("window.said ?? 0")

    assert said == 0


@in_a_browser
async def test_more_is_more_of_what_is_shown(tmp_path):
    """Whatever has been typed into the filter since; the page's own watch does not look for it either."""
    await fill_new(tmp_path, 250)
    async with watched(tmp_path) as (_, _, page):
        await unlocked(page)
        await expect(page.locator("#messages tr")).to_have_count(100)
        await page.get_by_label("Search").fill("customer-249")
        await a_round(page)
        await expect(page.locator("#messages tr")).to_have_count(100)
        await page.get_by_role("button", name="More").click()
        await expect(page.locator("#messages tr")).to_have_count(200)
        await page.get_by_role("button", name="Look").click()
        await expect(page.locator("#messages tr")).to_have_count(1)


@in_a_browser
async def test_a_later_look_overtakes_an_earlier_one(tmp_path):
    """Whose answer comes last is not what counts."""
    await fill_new(tmp_path, 3)
    async with watched(tmp_path) as (_, _, page):
        await unlocked(page)
        await expect(page.locator("#messages tr")).to_have_count(3)
        let_go = asyncio.Event()

        async def late(route: Route) -> None:
            await let_go.wait()
            await route.continue_()

        await page.route("**/api/v1/messages?*q=nobody*", late)
        await page.get_by_label("Search").fill("nobody")
        async with page.expect_request("**/api/v1/messages?*q=nobody*"):
            await page.get_by_role("button", name="Look").click()
        await page.get_by_label("Search").fill("customer-2")
        await page.get_by_role("button", name="Look").click()
        await expect(page.locator("#messages tr")).to_have_count(1)
        async with page.expect_response("**/api/v1/messages?*q=nobody*") as answer:
            let_go.set()
        await (await answer.value).finished()
        await page.evaluate("fetch('api/v1/status').then((answer) => answer.json())")  # the page has had its turn
        rows = await page.locator("#messages tr").count()

    assert rows == 1


@in_a_browser
async def test_a_long_search_is_not_repeated_by_itself(tmp_path):
    """It reads the whole spool; what is found quickly is kept up to date."""
    await fill_new(tmp_path, 20_001)
    async with watched(tmp_path) as (_, _, page):
        await unlocked(page)
        await page.get_by_label("Search").fill("customer-20001@")
        await page.get_by_role("button", name="Look").click()
        await expect(page.locator("#messages tr")).to_have_count(1)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for _ in range(3):
            async with page.expect_response("**/api/v1/credentials"):
                await page.clock.run_for(5000)

    assert not [url for url in asked if "/messages" in url]


@in_a_browser
async def test_a_double_click_is_one_action(tmp_path):
    """The second would find nothing to move, and say so over the outcome of the first."""
    async with watched(tmp_path) as (_, relay, page):
        await send(port_of(relay))
        await unlocked(page)
        await page.get_by_label("Choose all that are shown").check()
        posts: list[str] = []
        page.on("request", lambda request: posts.append(request.url) if request.method == "POST" else None)
        await page.get_by_role("button", name="Hold").dblclick()
        await expect(page.locator("#outcome")).to_have_text("hold: 1 of 1")

    assert len(posts) == 1


@in_a_browser
async def test_a_proxy_that_answers_for_the_relay_is_told_of_in_words(tmp_path):
    """It answers in HTML."""
    async with watched(tmp_path) as (_, _, page):
        await page.route("**/api/v1/status", lambda route: route.fulfill(status=502, body="<html>Bad Gateway"))
        await expect(page.locator("#verdict")).to_have_text(
            "The relay does not answer (no answer of a relay, status 502)."
        )


@in_a_browser
async def test_a_token_may_be_any_text(tmp_path):
    """As it may for other programs that ask."""
    token = "sésame-ouvre-toi-€-0123456789"
    async with watched(tmp_path, **keeping(tmp_path, token=token)) as (_, _, page):
        await unlock(page, token)
        await expect(page.locator("#inside")).to_be_visible()


@in_a_browser
async def test_what_would_turn_text_round_is_shown_escaped(tmp_path):
    """An address that reads as another one from right to left, as in the listings of `queue`."""
    async with watched(tmp_path) as (_, relay, page):
        await send(port_of(relay), content="From: a@example.com\r\nSubject: \u202emoc\u2066\r\n\r\nx\r\n".encode())
        await unlock(page)
        await page.locator("#messages tr button").click()
        await expect(page.locator("#header")).to_contain_text("Subject: \\u202emoc\\u2066")


@in_a_browser
@pytest.mark.parametrize("width", [375, 1280])
async def test_no_word_is_too_long_for_the_page(tmp_path, width):
    """The longest address there can be, in the list and in the message; on a telephone, too."""
    longest = "x" * 64 + "@" + ".".join(["y" * 63, "y" * 63, "y" * 61])
    async with watched(tmp_path) as (_, relay, page):
        await page.set_viewport_size({"width": width, "height": 800})
        await send(port_of(relay), longest, content=b"From: a@example.com\r\nX: " + b"z" * 900 + b"\r\n\r\nx\r\n")
        await unlock(page)
        await page.locator("#messages tr button").click()
        await expect(page.locator("#recipients tr")).to_have_count(1)
        wide = await page.evaluate("document.documentElement.scrollWidth")

    assert wide <= width


@in_a_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_all_text_stands_out(tmp_path, scheme):
    """By 4.5 to 1 at least, the contrast that WCAG 2 asks for, on the page and on its panes."""
    names = ["good", "bad", "waits", "dim"]
    async with watched(tmp_path) as (_, _, page):
        await page.emulate_media(color_scheme=scheme)
        colours = await page.evaluate(
            """(names) => {
              const probe = document.body.appendChild(document.createElement("i"));
              const drawn = document.createElement("canvas").getContext("2d");
              return Object.fromEntries([...names.map((one) => `var(--${one})`), "var(--pane)", "Canvas"].map((one) => {
                probe.style.color = one;
                drawn.fillStyle = getComputedStyle(probe).color;
                drawn.fillRect(0, 0, 1, 1);
                return [one, [...drawn.getImageData(0, 0, 1, 1).data].slice(0, 3)];
              }));
            }""",
            names,
        )

    for name in names:
        for ground in ("var(--pane)", "Canvas"):
            assert contrast(colours[f"var(--{name})"], colours[ground]) >= 4.5, (name, ground)


def contrast(one: list[int], other: list[int]) -> float:
    """WCAG 2: the ratio of their luminances."""
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour: list[int]) -> float:
    parts = (value / 255 for value in colour)
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
