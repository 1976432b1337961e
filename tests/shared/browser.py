"""A real browser without a window, spoken to by the WebDriver protocol; what it shows and complains about."""

import json
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from urllib.error import URLError
from urllib.request import Request, urlopen

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def missing():
    """Return what is not installed, empty if a browser can be had."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    return "" if browser and shutil.which("chromedriver") else "chromium and chromedriver are not installed"


class Browser:
    """One window of one size."""

    def __init__(self, root):
        self.root = root

    def call(self, path, **body):
        data = json.dumps(body).encode()
        request = Request(f"{self.root}{path}", data, {"Content-Type": "application/json"})
        with urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, url):
        self.call("/url", url=url)

    def run(self, script):
        return self.call("/execute/sync", script=script, args=[])

    def complaints(self, least="INFO"):
        """Return what the console was told since it was asked last, but for what weighs less."""
        told = self.call("/se/log", type="browser")
        return [entry["message"] for entry in told if least == "INFO" or entry["level"] == least]


@contextmanager
def browser(width, height=900, *, dark=False):
    """Open a browser whose page is `width` pixels wide."""
    with tempfile.TemporaryDirectory() as profile, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL)
        try:
            _wait(port)
            flags = [*FLAGS, f"--user-data-dir={profile}", *(["--force-dark-mode"] if dark else [])]
            metrics = {"width": width, "height": height, "pixelRatio": 1.0}
            options = {"args": flags, "mobileEmulation": {"deviceMetrics": metrics}}
            always = {
                "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}
            }  # fmt: skip
            root = f"http://127.0.0.1:{port}/session"
            session = Browser(root).call("", capabilities={"alwaysMatch": always})["sessionId"]
            opened = Browser(f"{root}/{session}")
            yield opened
            urlopen(Request(opened.root, method="DELETE"), timeout=60).close()
        finally:
            driver.terminate()
            driver.wait()


def _wait(port):
    for _ in range(200):
        try:
            urlopen(f"http://127.0.0.1:{port}/status", timeout=5).close()
        except URLError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("chromedriver does not answer")
