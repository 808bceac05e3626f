"""The demos: the frame of their pages, what each of them decides, and a person who uses them in a browser."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from browser import Browser, program
from fastapi.testclient import TestClient

from instructlab_apps.demos import page
from instructlab_repro.engine import cli
from instructlab_utils.errors import ParameterError

ROOT = Path(__file__).resolve().parents[1]
CONTRAST = (ROOT / "tests" / "contrast.js").read_text(encoding="utf-8")
OWN = "http://127.0.0.1"


# --- the frame -------------------------------------------------------------------------------------------------------


def toy(action=lambda form: f"/?said={form['said']}") -> page.Demo:
    """A demo with the template of a refusal as its only page: it shows a text."""
    view = page.View(
        "/", "Start", "refused.html.j2", lambda query: {"said": query.get("said", "nothing yet")}
    )
    return page.Demo("toy", "A toy", "It says what it was told.", (view,), {"say": action})


def client(demo: page.Demo) -> TestClient:
    return TestClient(page.application(demo), base_url=OWN, raise_server_exceptions=False)


def test_a_form_leads_to_a_page_and_every_value_is_escaped():
    said = client(toy()).post("/do/say", data={"said": "<script>alert(1)</script>"})
    assert said.status_code == 200 and said.history[0].status_code == 303
    assert "&lt;script&gt;alert(1)" in said.text and "<script>alert" not in said.text


def test_every_answer_forbids_what_the_page_does_not_need():
    c = client(toy())
    for path in ("/", "/page.css", "/page.js", "/health", "/nothing", "/docs", "/openapi.json"):
        answer = c.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"], path
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.status_code == (404 if path in ("/nothing", "/docs", "/openapi.json") else 200)
    assert c.get("/page.js").headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": OWN}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example:80"}, 403),
    ],
)
def test_only_the_own_page_may_send_a_form(headers, status):
    assert client(toy()).post("/do/say", data={"said": "x"}, headers=headers).status_code == status


@pytest.mark.parametrize(
    ("send", "status", "said"),
    [
        ({"url": "/do/shout", "content": b"said=x"}, 404, "no action named shout"),
        ({"url": "/do/say", "content": b"said=" + b"x" * 20_000}, 413, "too long"),
        ({"url": "/do/say", "content": b"&".join(b"a=1" for _ in range(60))}, 422, "more than 50 fields"),
        ({"url": "/do/say", "content": b""}, 500, ""),
    ],
)
def test_a_form_that_cannot_be_is_refused(send, status, said):
    answer = client(toy()).post(send["url"], content=send["content"])
    assert answer.status_code == status and said in answer.text


def test_a_mistake_of_the_person_is_one_sentence_and_a_leap_to_another_site_is_none():
    def wrong(form):
        raise ParameterError("write a question first")

    answer = client(toy(wrong)).post("/do/say", data={"said": ""})
    assert answer.status_code == 422 and "write a question first" in answer.text
    for target in ("//evil.example/", "https://evil.example/", "elsewhere"):
        assert client(toy(lambda form, t=target: t)).post("/do/say", data={"a": "b"}).status_code == 500


def test_fields_are_read_as_a_browser_sends_them():
    assert page.fields_of(b"a=1&b=two+words%21&c=&a=%C3%A9%00") == {"a": "é", "b": "two words!", "c": ""}
    assert page.fields_of("a=ü".encode()) == {"a": "\ufffd\ufffd"}


def test_a_demo_needs_a_first_page():
    view = page.View("/other", "Other", "refused.html.j2", lambda query: {})
    with pytest.raises(ParameterError, match="one of them '/'"):
        page.application(page.Demo("toy", "A toy", "", (view,)))


def refusal(capfd, *args: object) -> str:
    with pytest.raises(SystemExit) as left:
        cli.main([str(arg) for arg in args])
    assert left.value.code == 2
    return capfd.readouterr().err


def test_the_command_says_what_is_wrong_in_one_sentence(capfd):
    from instructlab_apps import commands  # adds the commands

    assert commands.app is cli.app
    assert "no demo named 'bott', did you mean 'bot'?" in refusal(capfd, "demo", "bott")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = refusal(capfd, "demo", "bot", "--port", taken.getsockname()[1])
    assert "cannot be used" in said and "--port" in said and said.count("\n") == 1
    assert "port 70000 cannot be used" in refusal(capfd, "demo", "bot", "--port", 70000)


# --- in a browser ----------------------------------------------------------------------------------------------------


class Served:
    """A demo on a free port, in a thread of this process."""

    def __init__(self, demo: page.Demo) -> None:
        self.place = page.listening(0)
        self.url = f"http://127.0.0.1:{self.place.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(page.application(demo), log_level="error"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.place]}, daemon=True)
        self.thread.start()
        end = time.monotonic() + 20
        while not self.server.started and time.monotonic() < end:
            time.sleep(0.02)

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        self.place.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = program()
    if path is None:
        pytest.skip("no Chromium here (apt-get install chromium), or set CHROMIUM to its path")
    with Browser(path) as found:
        yield found


def looks_right(browser: Browser, url: str) -> None:
    """The page at both widths, light and dark: nothing sideways, nothing on the console, nothing from elsewhere."""
    for width in (1280, 390):
        for dark in (False, True):
            browser.complaints.clear()
            browser.requests.clear()
            browser.open(url, width=width, dark=dark)
            assert browser.evaluate("Math.max(document.documentElement.scrollWidth, innerWidth)") == width
            assert browser.evaluate(CONTRAST) == []
            assert browser.complaints == []
            own = (url.split("/", 3)[2], "data:")
            assert [asked for asked in browser.requests if not any(one in asked for one in own)] == []
            assert browser.evaluate(UNNAMED) == []


UNNAMED = """[...document.querySelectorAll('input:not([type=hidden]), select, textarea, button, a')]
.filter(e => !(e.labels && e.labels.length) && !e.textContent.trim() && !e.ariaLabel).map(e => e.outerHTML)"""


def test_the_frame_in_a_browser(browser):
    served = Served(toy())
    try:
        looks_right(browser, f"{served.url}/")
        browser.evaluate("document.body.insertAdjacentHTML('beforeend', '<p style=\"color:red\">x</p>')")
        assert "Content Security Policy" in " ".join(browser.complaints)
        browser.press("Tab")
        assert browser.evaluate("document.activeElement.textContent") == "Skip to the content"
    finally:
        served.close()
