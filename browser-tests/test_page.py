"""The pages of www/ as a visitor meets them, at the node that serves them."""

import http.client
import re
import shutil
import subprocess
import tempfile
import unittest
import urllib.parse
from pathlib import Path

from node import WWW, Node, program
from webdriver import PATIENCE, Browser, wait_until

ACCESSIBILITY = (Path(__file__).resolve().parent / "accessibility.js").read_text()

PAGES = ("", "test.html")
WIDTHS = (320, 1100)

TAB, ENTER = "\ue004", "\ue007"


def setUpModule():
    global node, browser
    node = Node()
    unittest.addModuleCleanup(node.close)
    browser = Browser()
    unittest.addModuleCleanup(browser.close)
    # A headless window never has the focus that writing to the clipboard asks for.
    browser.devtools("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])


def visit(path: str):
    """Opens a page of the node with all logs and the browser's cache empty, so that what they hold afterwards is
    this page's."""
    browser.open("about:blank")
    browser.devtools("Network.clearBrowserCache")
    browser.console()
    browser.answers()
    browser.open(node.base + path)
    if path == "":
        wait_for_listing()


def wait_for_listing():
    """Waits until the first page shows what the node offers, after which nothing on it moves any more."""
    wait_until("the listing", lambda: browser.text("#files-note").startswith("What this node offers now"))


def ask(method: str, path: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=PATIENCE)
    connection.request(method, "/" + path)
    answer = connection.getresponse()
    answer.body = answer.read()
    connection.close()
    return answer


def shown_size(size: int) -> str:
    """A size as the pages write it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024


class Opening(unittest.TestCase):
    def test_pages_open_without_a_complaint(self):
        for path in PAGES:
            with self.subTest(path):
                visit(path)
                self.assertIn("Relay node", browser.title())
                self.assertEqual(browser.console(), [])
                statuses = [status for status, _ in browser.answers()]
                self.assertTrue(statuses)
                self.assertLessEqual(set(statuses), {200, 304})

    def test_everything_comes_from_the_node(self):
        for path in PAGES:
            with self.subTest(path):
                visit(path)
                loaded = browser.script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
                self.assertIn(node.base + "style.css", loaded)
                self.assertEqual([url for url in loaded if not url.startswith(node.base)], [])

    def test_the_table_shows_what_is_there(self):
        visit("")
        rows = browser.script(
            "return [...document.querySelectorAll('#file-rows tr')].map((row) =>"
            " [row.querySelector('a').getAttribute('href'), row.lastElementChild.textContent])"
        )
        offered = {path.name for path in WWW.iterdir() if not path.name.startswith(".")}
        own = {"index.html", "test.html", "style.css", "icon.svg", "favicon.ico"}
        names = {urllib.parse.unquote(href).removesuffix("/") for href, _ in rows}
        self.assertEqual(names, offered - own)
        for href, size in rows:
            answer = ask("GET", href)
            self.assertEqual(answer.status, 200, href)
            if not href.endswith("/"):
                self.assertEqual(shown_size(len(answer.body)), size, href)

    def test_the_table_follows_the_node(self):
        with tempfile.TemporaryDirectory() as place:
            root = Path(place) / "www"
            shutil.copytree(WWW, root)
            (root / "chain.png").unlink()
            names = ["a <b>&amp;.txt", "100%.txt", "#hash", "co:lon", "quest?ion"]
            for name in names:
                (root / name).write_text(name)
            with Node(root=root) as other:
                browser.open(other.base)
                wait_for_listing()
                shown = browser.script("return [...document.querySelectorAll('#file-rows a')].map((a) => a.textContent)")
                self.assertEqual(sorted(shown), sorted([
                    "B3SUMS", "chain.svg", "field notes.txt", "hello.txt", "sample.bin", "station/", *names,
                ]))
                self.assertIn("a greeting", browser.text("#file-rows"))
                for name in names:
                    saved = browser.script(
                        "return fetch([...document.links].find((link) => link.text === arguments[0]).href)"
                        ".then((answer) => answer.text())", name,
                    )
                    self.assertEqual(saved, name)
                self.assertEqual(browser.console(), [])

    def test_without_listings_the_samples_stay(self):
        with Node("--no-listing") as other:
            browser.open(other.base)
            # The request that may change the table is over, and nothing came of it.
            wait_until("the question for the listing", lambda: any(
                url.endswith("?format=json")
                for url in browser.script("return performance.getEntriesByType('resource').map((one) => one.name)")
            ))
            self.assertIn("The samples that come with a node", browser.text("#files-note"))
            self.assertEqual(browser.console(), [])

    def test_without_script_the_page_is_whole(self):
        visit("")
        with_script = browser.text("main")
        browser.devtools("Emulation.setScriptExecutionDisabled", value=True)
        self.addCleanup(browser.devtools, "Emulation.setScriptExecutionDisabled", value=False)
        browser.open(node.base)
        text = browser.text("main")
        self.assertIn("hello.txt\n127.0.0.1 12000", text)
        self.assertIn("relay-client --get hello.txt --via 127.0.0.1:12000", text)
        for name in ("hello.txt", "field notes.txt", "sample.bin"):
            self.assertIn(name, text)
        # What needs script is not shown without it.
        self.assertIn("Copy", with_script)
        self.assertNotIn("Copy", text)
        browser.open(node.base + "test.html")
        self.assertIn("The checks need script", browser.text("main"))
        self.assertNotIn("Run the checks", browser.text("main"))


class Visiting(unittest.TestCase):
    def test_a_file_is_followed(self):
        for name in ("hello.txt", "field notes.txt"):
            with self.subTest(name):
                visit("")
                browser.follow(name)
                self.assertEqual(browser.url(), node.base + urllib.parse.quote(name))
                self.assertEqual(browser.text("body").strip(), (WWW / name).read_text().strip())
                self.assertEqual(browser.console(), [])

    def test_a_directory_is_followed(self):
        visit("")
        browser.follow("station/")
        self.assertIn("readings.csv", browser.text("body"))
        self.assertEqual(browser.console(), [])
        browser.follow("überblick.txt")
        self.assertEqual(browser.url(), node.base + "station/%C3%BCberblick.txt")
        self.assertIn("Überblick", browser.text("body"), "the text came without its character set")

    def test_a_reload_gets_a_304(self):
        for path in ("hello.txt", "index.html"):
            with self.subTest(path):
                visit(path)
                before = browser.text("body")
                [(status, headers)] = browser.answers(node.base + path)
                self.assertEqual(status, 200)
                browser.reload()
                [(status, again)] = browser.answers(node.base + path)
                self.assertEqual(status, 304)
                self.assertEqual(again["etag"], headers["etag"])
                self.assertEqual(browser.text("body"), before)
        self.assertTrue(node.said(r'"GET /hello\.txt HTTP/1\.1" 304 '))

    def test_what_is_not_there_is_a_404_page(self):
        visit("not/there.txt")
        [(status, headers)] = browser.answers(node.base + "not/there.txt")
        self.assertEqual(status, 404)
        self.assertRegex(headers["content-type"], r"^text/html; *charset=utf-8$")
        self.assertIn("404", browser.title())
        self.assertIn("404", browser.text("h1"))
        complaints = browser.console()
        self.assertEqual(len(complaints), 1, complaints)
        self.assertIn("404", complaints[0])

    def test_a_download_has_the_same_bytes(self):
        visit("test.html")
        browser.follow("sample.bin")
        saved = browser.downloaded("sample.bin")
        self.assertEqual(saved.read_bytes(), (WWW / "sample.bin").read_bytes())
        self.assertEqual(browser.console(), [])

    def test_all_checks_of_the_test_page_are_good(self):
        visit("test.html")
        browser.click("#run")
        verdict = wait_until("the verdict", lambda: (text := browser.text("#verdict")).endswith(".") and text)
        self.assertEqual(verdict, "All 10 answers are good.", browser.text("#check-rows"))
        # A browser notes failed requests by itself; these four are the ones that the page makes fail.
        noted = sorted(re.search(r"status of (\d+)", line)[1] for line in browser.console())
        self.assertEqual(noted, ["404", "404", "405", "416"])


class Examples(unittest.TestCase):
    def choose(self, href: str):
        browser.script(
            "const file = document.querySelector('#file'); file.value = arguments[0];"
            "file.dispatchEvent(new Event('change'))",
            href,
        )

    def copied(self, what: str) -> str:
        """Presses a copy button and returns what the clipboard holds then."""
        browser.script("return navigator.clipboard.writeText('')")
        browser.click(f"[data-copies={what}]")
        wait_until("the word that it was copied", lambda: browser.text("#said").startswith("Copied"))
        return browser.script("return navigator.clipboard.readText()")

    def test_the_copied_route_fetches(self):
        visit("")
        self.choose("field%20notes.txt")
        route = self.copied("route")
        self.assertEqual(route, f"field notes.txt\n127.0.0.1 {node.port}\n")
        with tempfile.TemporaryDirectory() as place:
            (Path(place) / "route.txt").write_text(route)
            self.run_copied("client", place)
            self.assertEqual((Path(place) / "field notes.txt").read_bytes(), (WWW / "field notes.txt").read_bytes())

    def test_the_copied_commands_fetch(self):
        visit("")
        for href in ("hello.txt", "field%20notes.txt", "sample.bin"):
            self.choose(href)
            name = urllib.parse.unquote(href)
            for what in ("direct", "curl"):
                with self.subTest(f"{what} {name}"), tempfile.TemporaryDirectory() as place:
                    self.run_copied(what, place)
                    self.assertEqual((Path(place) / name).read_bytes(), (WWW / name).read_bytes())

    def run_copied(self, what: str, place: str):
        command = self.copied(what)
        client = f"relay-client() {{ '{program('relay-client')}' \"$@\"; }}\n" if what != "curl" else ""
        done = subprocess.run(["bash", "-c", client + command], cwd=place, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 0, f"{command}\n{done.stdout}{done.stderr}")

    def test_hostile_names_stay_words(self):
        """A name from the node's listing ends up in commands that people paste into a shell."""
        names = ["$(touch pwned)", "it's", "-rf", "#1.txt", "{a}", "a;b", "`id`", "ü", 'say "hi"', "back\\slash"]
        visit("")
        for name in names:
            href = "./" + urllib.parse.quote(name)
            browser.script("document.querySelector('#file').append(new Option('x', arguments[0]))", href)
            self.choose(href)
            for what, wanted in (("direct", name), ("curl", None)):
                words = self.words(browser.script("return document.getElementById(arguments[0]).textContent", what))
                if what == "direct":
                    self.assertIn(words[1:3], (["--get", wanted], [f"--get={wanted}", "--via"]), name)
                else:
                    self.assertEqual(Path(words[words.index("-o") + 1]).name, name)
                    self.assertEqual(words[-1], node.base + href.removeprefix("./"))
            first_line = browser.script("return document.getElementById('route').textContent").split("\n")[0]
            self.assertEqual(first_line, "./" + name if name[0] in "#{" else name)

    def words(self, command: str) -> list:
        """The words that a shell makes of a command, without running it."""
        listed = subprocess.run(
            ["bash", "-c", f"set -- {command}\nprintf '%s\\0' \"$@\""], capture_output=True, text=True, timeout=PATIENCE
        )
        return listed.stdout.split("\0")[:-1]


class Access(unittest.TestCase):
    """By keyboard, by screen reader, on small screens, in light and in dark."""

    def test_what_a_program_can_decide(self):
        for path in (*PAGES, "station/", "not/there.txt"):
            for width in WIDTHS:
                for dark in (False, True):
                    with self.subTest(path=path, width=width, dark=dark):
                        browser.screen(width, 800, dark)
                        self.addCleanup(browser.devtools, "Emulation.clearDeviceMetricsOverride")
                        visit(path)
                        self.assertEqual(browser.script(ACCESSIBILITY), [])

    def test_what_a_screen_reader_hears(self):
        visit("")
        for selector, role, name in (
            ("header", "banner", ""),
            ("nav", "navigation", "Pages"),
            ("main", "main", ""),
            ("footer", "contentinfo", ""),
            ("section:has(#files)", "region", "Files on this node"),
            ("section:has(#fetch)", "region", "Fetch one"),
            ("#file", "combobox", "File"),
            ("[data-copies=route]", "button", "Copy the route file"),
            ("[data-copies=curl]", "button", "Copy the curl command"),
            ("#said", "status", ""),
        ):
            with self.subTest(selector):
                self.assertEqual(browser.role_and_name(selector), (role, name))

    def test_the_keyboard_reaches_everything(self):
        for path in PAGES:
            with self.subTest(path):
                visit(path)
                wanted = browser.script(
                    "return [...document.querySelectorAll('a[href], button, select')]"
                    ".filter((one) => one.checkVisibility()).length"
                )
                seen = []
                for _ in range(wanted):
                    browser.press(TAB)
                    seen.append(browser.script(
                        "const one = document.activeElement; const box = one.getBoundingClientRect();"
                        "const style = getComputedStyle(one);"
                        "return { what: one.outerHTML.slice(0, 80), inside: box.left >= 0 && box.width > 0,"
                        " outline: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2 }"
                    ))
                self.assertEqual(len({place["what"] for place in seen}), wanted)
                self.assertEqual([place for place in seen if not (place["inside"] and place["outline"])], [])

    def test_the_skip_link_skips(self):
        visit("")
        browser.press(TAB)
        self.assertEqual(browser.script("return document.activeElement.textContent"), "Skip to the files")
        browser.press(ENTER)
        self.assertEqual(browser.script("return document.activeElement.id"), "files")
        browser.press(TAB)
        self.assertTrue(browser.script("return document.activeElement.closest('#file-rows') !== null"))

    def test_a_copy_is_made_by_keyboard_and_announced(self):
        visit("")
        browser.script("document.querySelector('[data-copies=route]').focus()")
        browser.press(ENTER)
        wait_until("the announcement", lambda: browser.text("#said") == "Copied the route file.")
        self.assertEqual(browser.role_and_name("#said")[0], "status")


if __name__ == "__main__":
    unittest.main()
