"""The dashboard in a real browser: what an operator sees, and that nothing of it needs, keeps or leaks a secret."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright, expect

from relay.app import Relay
from relay.core.lifecycle import State
from relay.sandbox import Port, Sandbox
from tests.support.admin import TOKEN, ask, keeping, tcp_of, unix_of
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
