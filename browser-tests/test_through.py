"""A browser behind a node: the forward proxy, and the gateway into a chain."""

import tempfile
import unittest
from pathlib import Path

from node import WWW, Node
from webdriver import Browser


class Through(unittest.TestCase):
    """What must hold however the pages come to the browser."""

    def assert_visit(self, browser: Browser, base: str):
        browser.open(base)
        self.assertIn("Relay node", browser.title())
        browser.follow("field notes.txt")
        self.assertEqual(browser.text("body").strip(), (WWW / "field notes.txt").read_text().strip())
        self.assertEqual(browser.console(), [])
        browser.open(base + "test.html")
        browser.follow("sample.bin")
        self.assertEqual(browser.downloaded("sample.bin").read_bytes(), (WWW / "sample.bin").read_bytes())
        self.assertEqual(browser.console(), [])
        statuses = {status for status, _ in browser.answers()}
        self.assertLessEqual(statuses, {200, 304})

    def assert_failure_page(self, browser: Browser, url: str, status: int) -> str:
        """Opens what must fail with a page, and returns the page's text."""
        browser.answers()
        browser.open(url)
        [(answered, headers)] = browser.answers(url)
        self.assertEqual(answered, status, browser.text("body"))
        self.assertTrue(headers["content-type"].startswith("text/html"))
        self.assertIn(str(status), browser.text("h1"))
        browser.console()
        return browser.text("body")


class ForwardProxy(Through):
    def setUp(self):
        self.origin = self.enterContext(Node())
        self.refused = self.enterContext(Node())
        self.proxy = self.enterContext(
            Node("--forward-proxy", "--allow-proxy", self.origin.host_and_port, root=self.enterContext(empty_root()))
        )
        self.browser = self.enterContext(
            Browser(f"--proxy-server=http://{self.proxy.host_and_port}", "--proxy-bypass-list=<-loopback>")
        )

    def test_pages_and_a_download_come_through(self):
        self.assert_visit(self.browser, self.origin.base)
        # The proxy has no file of its own, and what it passes on carries its mark.
        self.browser.open(self.origin.base + "hello.txt")
        [(_, headers)] = self.browser.answers(self.origin.base + "hello.txt")
        self.assertIn("via", headers)

    def test_what_is_not_allowed_is_refused(self):
        self.assert_failure_page(self.browser, self.refused.base + "hello.txt", 403)
        self.assertNotIn("Hello from the far end", self.browser.text("body"))

    def test_an_origin_that_is_gone_is_a_502(self):
        self.origin.close()
        text = self.assert_failure_page(self.browser, self.origin.base + "hello.txt", 502)
        self.assertIn(self.origin.host_and_port, text)


class Gateway(Through):
    """Browser → gateway → relay → origin, each a process of its own."""

    def setUp(self):
        self.origin = self.enterContext(Node())
        self.relay = self.enterContext(Node(root=self.enterContext(empty_root())))
        route = Path(self.enterContext(empty_root())) / "route.txt"
        route.write_text(f"any\n127.0.0.1 {self.relay.port}\n127.0.0.1 {self.origin.port}\n")
        self.gateway = self.enterContext(Node("--gateway", route, root=self.enterContext(empty_root())))
        self.browser = self.enterContext(Browser())

    def test_pages_and_a_download_come_through(self):
        self.assert_visit(self.browser, self.gateway.base)

    def test_what_the_origin_lacks_is_a_404(self):
        self.assert_failure_page(self.browser, self.gateway.base + "not/there.txt", 404)

    def test_a_hop_that_is_gone_is_named(self):
        self.origin.close()
        text = self.assert_failure_page(self.browser, self.gateway.base + "hello.txt", 502)
        self.assertIn(str(self.origin.port), text)


def empty_root() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="relay-root-")


if __name__ == "__main__":
    unittest.main()
