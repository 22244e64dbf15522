"""A browser behind a node: the reverse proxy with its cache, the forward proxy, and the gateway into a chain."""

import http.server
import os
import shutil
import ssl
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

from node import WWW, Node, have
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

    def assert_reload(self, browser: Browser, base: str, path: str):
        """A reload is answered with a 304, and shows what was there."""
        browser.open(base + path)
        before = browser.text("body")
        [(status, headers)] = browser.answers(base + path)
        self.assertEqual(status, 200)
        browser.reload()
        [(status, again)] = browser.answers(base + path)
        self.assertEqual(status, 304)
        self.assertEqual(again["etag"], headers["etag"])
        self.assertEqual(browser.text("body"), before)

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


class ReverseProxy(Through):
    """Browser → node with a cache → upstream."""

    def setUp(self):
        self.origin = self.enterContext(Node(root=self.enterContext(old_pages()) + "/www"))
        cache = self.enterContext(empty_root())
        options = ("--upstream", self.origin.base, "--cache-dir", cache, "--cache-size", "100MiB")
        self.front = self.enterContext(Node(*options, root=self.enterContext(empty_root())))
        self.browser = self.enterContext(Browser())

    def test_pages_and_a_download_come_through(self):
        self.assert_visit(self.browser, self.front.base)

    def test_a_reload_gets_a_304(self):
        self.assert_reload(self.browser, self.front.base, "hello.txt")

    def test_what_is_stored_is_there_without_the_upstream(self):
        self.browser.open(self.front.base + "hello.txt")
        [(_, headers)] = self.browser.answers(self.front.base + "hello.txt")
        self.assertIn("fwd=uri-miss; stored", headers["cache-status"])
        self.origin.close()
        # Another browser has nothing of its own.
        browser = self.enterContext(Browser())
        browser.open(self.front.base + "hello.txt")
        [(status, headers)] = browser.answers(self.front.base + "hello.txt")
        self.assertEqual(status, 200)
        self.assertIn("relay-node; hit", headers["cache-status"])
        self.assertIn("Hello from the far end", browser.text("body"))
        text = self.assert_failure_page(browser, self.front.base + "test.html", 502)
        self.assertIn(self.origin.host_and_port, text)

    def test_what_is_not_there_is_a_404_page(self):
        self.assert_failure_page(self.browser, self.front.base + "not/there.txt", 404)


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

    def test_a_reload_gets_a_304(self):
        self.assert_reload(self.browser, self.origin.base, "hello.txt")

    def test_what_is_not_there_is_a_404_page(self):
        self.assert_failure_page(self.browser, self.origin.base + "not/there.txt", 404)

    def test_what_is_not_allowed_is_refused(self):
        self.assert_failure_page(self.browser, self.refused.base + "hello.txt", 403)
        self.assertNotIn("Hello from the far end", self.browser.text("body"))

    def test_an_origin_that_is_gone_is_a_502(self):
        self.origin.close()
        text = self.assert_failure_page(self.browser, self.origin.base + "hello.txt", 502)
        self.assertIn(self.origin.host_and_port, text)


@unittest.skipUnless(have("openssl"), "openssl, which makes a certificate, is not installed")
class Connect(Through):
    """For https:// a browser opens a tunnel through its proxy."""

    def setUp(self):
        self.site = self.enterContext(EncryptedSite())
        options = ("--forward-proxy", "--allow-proxy", self.site.host_and_port)
        self.proxy = self.enterContext(Node(*options, root=self.enterContext(empty_root())))
        self.browser = self.enterContext(
            Browser(
                f"--proxy-server=http://{self.proxy.host_and_port}",
                "--proxy-bypass-list=<-loopback>",
                "--ignore-certificate-errors",
            )
        )

    def test_pages_and_a_download_come_through(self):
        self.assert_visit(self.browser, self.site.base)
        self.browser.close()
        self.assertTrue(self.proxy.said(rf'"CONNECT {self.site.host_and_port} HTTP/1\.1" 200 [1-9]'))


class Gateway(Through):
    """Browser → gateway → relay → origin, each a process of its own."""

    options = ()

    def setUp(self):
        self.origin = self.enterContext(Node())
        self.relay = self.enterContext(Node(root=self.enterContext(empty_root())))
        route = Path(self.enterContext(empty_root())) / "route.txt"
        route.write_text(f"any\n127.0.0.1 {self.relay.port}\n127.0.0.1 {self.origin.port}\n")
        self.gateway = self.enterContext(Node("--gateway", route, *self.options, root=self.enterContext(empty_root())))
        self.browser = self.enterContext(Browser())

    def test_pages_and_a_download_come_through(self):
        self.assert_visit(self.browser, self.gateway.base)

    def test_a_reload_gets_a_304(self):
        self.assert_reload(self.browser, self.gateway.base, "hello.txt")

    def test_what_the_origin_lacks_is_a_404(self):
        self.assert_failure_page(self.browser, self.gateway.base + "not/there.txt", 404)

    def test_a_hop_that_is_gone_is_named(self):
        self.origin.close()
        text = self.assert_failure_page(self.browser, self.gateway.base + "hello.txt", 502)
        self.assertIn(str(self.origin.port), text)


class CachingGateway(Gateway):
    """The same, with a cache in front of the chain."""

    def setUp(self):
        self.options = ("--cache-dir", self.enterContext(empty_root()))
        super().setUp()

    def test_a_second_download_is_confirmed_by_the_origin(self):
        for told in ("fwd=uri-miss; stored", "fwd=stale; fwd-status=304"):
            browser = self.enterContext(Browser())
            browser.open(self.gateway.base + "hello.txt")
            [(status, headers)] = browser.answers(self.gateway.base + "hello.txt")
            self.assertEqual(status, 200)
            self.assertIn(told, headers["cache-status"])


class EncryptedSite:
    """The pages over https, by Python's own server."""

    def __init__(self):
        self._place = tempfile.TemporaryDirectory(prefix="relay-tls-")
        key, certificate = Path(self._place.name) / "key.pem", Path(self._place.name) / "certificate.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
            + ["-keyout", key, "-out", certificate],
            check=True,
            capture_output=True,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)

        class Pages(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments):
                super().__init__(*arguments, directory=WWW)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.host_and_port = f"127.0.0.1:{self._server.server_port}"
        self.base = f"https://{self.host_and_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._place.cleanup()


def old_pages() -> tempfile.TemporaryDirectory:
    """A copy of the pages in `www` of a directory, so old that a cache takes them for fresh."""
    place = empty_root()
    copy = Path(place.name) / "www"
    shutil.copytree(WWW, copy)
    then = time.time() - 100 * 24 * 3600
    for path in copy.rglob("*"):
        os.utime(path, (then, then))
    return place


def empty_root() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="relay-root-")


if __name__ == "__main__":
    unittest.main()
