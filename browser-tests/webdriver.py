"""A browser that is driven over WebDriver (W3C), with nothing but the standard library.

`Browser` owns one chromedriver process, one headless Chromium and a fresh profile, and ends and
removes all three. It knows nothing of nodes and pages.
"""

import base64
import json
import os
import queue
import re
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

# How long to wait for anything that should come; far longer than a loaded machine needs.
PATIENCE = 120.0

# What keeps a headless Chromium from speaking to anybody but the pages under test.
QUIET_FLAGS = (
    "--headless",
    # The sandbox cannot be set up by root, and the pages are our own.
    *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-pings",
    # Names other than the loopback ones are not even looked up.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)

# The driver lets the system choose a port for one address family and then wants the same one of the other, which may be taken.
DRIVER_STARTS = 20

ELEMENT_KEY = "element-6066-11e4-a52e-4f735466cecf"


class WebDriverError(Exception):
    """The driver refused a command; says which and why."""


def wait_until(what: str, probe, patience: float = PATIENCE):
    """Asks `probe` until it gives something true, and returns that."""
    end = time.monotonic() + patience
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"waited {patience:.0f} s for {what}")
        time.sleep(0.05)


class Browser:
    """One Chromium with a profile of its own. Use it in a `with` statement."""

    def __init__(self, *flags: str):
        self._home = Path(tempfile.mkdtemp(prefix="relay-browser-"))
        self.downloads = self._home / "downloads"
        self.downloads.mkdir()
        self._driver = None
        self._base = None
        try:
            self._start(flags)
        except BaseException:
            self.close()
            raise

    def _start(self, flags):
        self._base = f"http://127.0.0.1:{self._start_driver()}"
        options = {
            "args": [*QUIET_FLAGS, f"--user-data-dir={self._home / 'profile'}", *flags],
            "prefs": {"download.default_directory": str(self.downloads), "download.prompt_for_download": False},
            "perfLoggingPrefs": {"enableNetwork": True, "enablePage": False},
        }
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._base += f"/session/{session['sessionId']}"
        self.devtools("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

    def _start_driver(self) -> int:
        """Starts the driver and returns its port."""
        for _ in range(DRIVER_STARTS):
            self._end_driver()
            self._driver = subprocess.Popen(
                ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            port, said = self._driver_port()
            if port is not None or "Address already in use" not in said:
                break
        if port is None:
            raise WebDriverError(f"chromedriver named no port; it said: {said}")
        return port

    def _driver_port(self) -> tuple:
        """Reads the port from the driver's first lines, and goes on draining what it prints. Also returns what it said."""
        lines = queue.Queue()

        def drain(output=self._driver.stdout):
            with output:
                for line in output:
                    lines.put(line)
            lines.put(None)

        threading.Thread(target=drain, daemon=True).start()
        said = []
        while True:
            try:
                line = lines.get(timeout=PATIENCE)
            except queue.Empty:
                line = None
            if line is None:
                return None, "".join(said)
            said.append(line)
            if found := re.search(r"started successfully on port (\d+)", line):
                return int(found[1]), "".join(said)

    def _call(self, method: str, path: str, body=None):
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._base + path, data, {"content-type": "application/json"}, method=method)
        # A proxy named in the environment is none of the driver's business.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=4 * PATIENCE) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as refusal:
            value = json.load(refusal)["value"]
            raise WebDriverError(f"{method} {path}: {value['error']}: {value['message']}") from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self._base is not None and self._driver.poll() is None:
            try:
                self._call("DELETE", "")
            except (WebDriverError, OSError):
                pass
        self._end_driver()
        shutil.rmtree(self._home, ignore_errors=True)

    def _end_driver(self):
        if self._driver is None:
            return
        self._driver.terminate()
        try:
            self._driver.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._driver.kill()
            self._driver.wait()

    # What a visitor does.

    def open(self, url: str):
        self._call("POST", "/url", {"url": url})

    def reload(self):
        self._call("POST", "/refresh")

    def url(self) -> str:
        return self._call("GET", "/url")

    def title(self) -> str:
        return self._call("GET", "/title")

    def find(self, selector: str) -> str:
        """The one element that a CSS selector finds; fails when there is none."""
        return self._call("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT_KEY]

    def follow(self, link_text: str):
        element = self._call("POST", "/element", {"using": "link text", "value": link_text})[ELEMENT_KEY]
        self._call("POST", f"/element/{element}/click")

    def click(self, selector: str):
        self._call("POST", f"/element/{self.find(selector)}/click")

    def press(self, *keys: str):
        """Presses keys one after the other, wherever the focus is."""
        steps = [step for key in keys for step in ({"type": "keyDown", "value": key}, {"type": "keyUp", "value": key})]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": steps}]})

    # What a tester looks at.

    def script(self, body: str, *arguments):
        """Runs a function body in the page and returns what it returns."""
        return self._call("POST", "/execute/sync", {"script": body, "args": list(arguments)})

    def text(self, selector: str) -> str:
        return self._call("GET", f"/element/{self.find(selector)}/text")

    def role_and_name(self, selector: str) -> tuple:
        """What a screen reader is told about an element."""
        element = self.find(selector)
        return (
            self._call("GET", f"/element/{element}/computedrole"),
            self._call("GET", f"/element/{element}/computedlabel"),
        )

    def devtools(self, command: str, **parameters):
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def console(self) -> list:
        """What the page or the browser complained about since the last call."""
        return [f"{entry['level']}: {entry['message']}" for entry in self._log("browser")]

    def answers(self, url: str = "") -> list:
        """(status, headers) of the answers that came over the wire since the last call, in order: all, or those to
        questions for one address."""
        events = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        asked = {}
        for event in events:
            if event["method"] == "Network.requestWillBeSent":
                asked[event["params"]["requestId"]] = event["params"]["request"]["url"]
        return [
            (event["params"]["statusCode"], {k.lower(): v for k, v in event["params"]["headers"].items()})
            for event in events
            if event["method"] == "Network.responseReceivedExtraInfo"
            and url in ("", asked.get(event["params"]["requestId"]))
        ]

    def _log(self, kind: str) -> list:
        return self._call("POST", "/se/log", {"type": kind})

    def downloaded(self, name: str) -> Path:
        """Waits until a download has its final name."""
        path = self.downloads / name

        def whole():
            unfinished = list(self.downloads.glob("*.crdownload"))
            return path.exists() and not unfinished

        wait_until(f"the download of {name} (there is {[p.name for p in self.downloads.iterdir()]})", whole)
        return path

    def screen(self, width: int, height: int, dark: bool = False):
        """Makes the page believe in a screen of this size and in a colour preference."""
        size = {"width": width, "height": height, "screenWidth": width, "screenHeight": height}
        self.devtools("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=width < 600)
        scheme = "dark" if dark else "light"
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path):
        """The whole page, not only what fits the screen, as PNG."""
        png = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        Path(path).write_bytes(base64.b64decode(png))
