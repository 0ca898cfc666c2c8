"""Headless Chromium for tests of HTML pages, by the WebDriver protocol and the standard library.

with browsers(width=390, dark=True) as browser:  # a fixture: one is started for all tests
    browser.open(path)
    browser.click("#on")
    browser.script("return document.title")
"""

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed"
)
KEYS = {"ArrowLeft": "\ue012", "ArrowUp": "\ue013", "ArrowRight": "\ue014", "ArrowDown": "\ue015"}
KEYS["Enter"] = "\ue007"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name of a reference


class Browser:
    """One window of a browser that has no network and forgets everything."""

    def __init__(self):
        self.home = tempfile.mkdtemp(prefix="lm-browser-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.driver = subprocess.Popen(
            [DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        flags = "--headless --no-sandbox --disable-gpu --disable-background-networking "
        flags += "--disable-component-update --disable-sync --no-first-run --hide-scrollbars "
        flags += f"--user-data-dir={self.home} --proxy-server=127.0.0.1:9"
        options = {"binary": CHROMIUM, "args": flags.split()}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options}
        wanted["goog:loggingPrefs"] = {"browser": "ALL"}
        self.session = ""
        for attempt in range(100):  # until the driver listens, and the browser has started
            try:
                found = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
                break
            except (OSError, AssertionError) as error:
                if attempt == 99 or (isinstance(error, AssertionError) and attempt > 90):
                    self.driver.kill()
                    self.driver.wait(10)
                    raise
                time.sleep(0.1 if isinstance(error, OSError) else 1)
        self.session = f"/session/{found['sessionId']}"

    def close(self) -> None:
        try:
            self.call("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait(10)
            shutil.rmtree(self.home, ignore_errors=True)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.url + self.session + path, data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def renew(self, width: int, dark: bool) -> None:
        """Forget the page that is open and be a screen of that width, whose user likes it dark."""
        self.call("POST", "/url", {"url": "about:blank"})
        self.errors()
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": True}
        self.devtools("Emulation.setDeviceMetricsOverride", **screen)
        self.devtools("Emulation.setTouchEmulationEnabled", enabled=True)
        colours = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[colours])

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, page: Path) -> None:
        self.call("POST", "/url", {"url": page.absolute().as_uri()})

    def script(self, code: str, *arguments: Any) -> Any:
        return self.call("POST", "/execute/sync", {"script": code, "args": list(arguments)})

    def text(self, selector: str) -> str:
        return self.script("return document.querySelector(arguments[0]).innerText", selector)

    def click(self, selector: str) -> None:
        """Click in the middle of what the selector finds, clear of bars that stick to an edge."""
        self.script(
            "document.querySelector(arguments[0]).scrollIntoView({block:'center'})", selector
        )
        found = self.call("POST", "/element", {"using": "css selector", "value": selector})
        self.call("POST", f"/element/{found[ELEMENT]}/click")

    def press(self, key: str) -> None:
        value = KEYS.get(key, key)
        actions = [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "k", "actions": actions}]})

    def screenshot(self, path: Path | None = None) -> bytes:
        data = base64.b64decode(self.call("GET", "/screenshot"))
        if path:
            path.write_bytes(data)
        return data

    def errors(self) -> list[str]:
        """What the page wrote to its console as errors, refused requests included."""
        log = self.call("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]
