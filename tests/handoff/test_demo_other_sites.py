"""What a page of another site, open in a browser of the same machine, gets of ``cxrlit demo``: nothing."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browsing import CHROMIUM
from bundles import write_bundle, write_images

from cxrlit import Predictor

pytest.importorskip("starlette")
pytest.importorskip("playwright")

from demo_visits import open_browser
from demos import FILE, Watched, serve_here

ATTACK = """async ([address, body]) => {
  const file = new Blob([body]);
  const typed = { "Content-Type": "application/octet-stream" };
  const tries = [
    () => fetch(`${address}/predict`, { method: "POST", body: file }),
    () => fetch(`${address}/predict`, { method: "POST", body: file, headers: typed }),
    () => fetch(`${address}/predict`, { method: "POST", body: file, headers: typed, mode: "no-cors" }),
    () => fetch(`${address}/health`),
  ];
  const statuses = [];
  for (const one of tries) statuses.push(await one().then((answer) => answer.status, () => "refused"));
  navigator.sendBeacon(`${address}/predict`, new Blob([body], { type: "application/octet-stream" }));
  const frame = document.body.appendChild(document.createElement("iframe"));
  await new Promise((done) => { frame.onload = done; frame.src = address; });
  const form = document.body.appendChild(document.createElement("form"));
  Object.assign(form, { action: `${address}/predict`, method: "post", enctype: "text/plain", target: "_blank" });
  form.submit();
  return statuses;
}"""
"""What a page of another site can try."""


class Other(BaseHTTPRequestHandler):
    """A page of another site."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Another site</title><body>")

    def log_message(self, *args: Any) -> None:
        pass


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_page_of_another_site_cannot_use_it(tmp_path: Path) -> None:
    (path,) = write_images(tmp_path, 1)
    watched = Watched(Predictor.load(write_bundle(tmp_path / "bundle"), "onnx", n_threads=1))
    with (
        open_browser() as browser,
        serve_here(watched, tmp_path) as page,
        ThreadingHTTPServer(("127.0.0.1", 0), Other) as other,
    ):
        threading.Thread(target=other.serve_forever).start()
        context = browser.new_context()
        person = context.new_page()
        for name in ("127.0.0.1", "evil.example"):
            person.goto(f"http://{name}:{other.server_port}")
            statuses = person.evaluate(ATTACK, [page.address, path.read_bytes().decode("latin-1")])
            assert statuses == ["refused"] * 4
        answer = person.goto(page.address.replace("127.0.0.1", "evil.example"))
        assert answer is not None
        assert answer.status == 403
        context.close()
        other.shutdown()
        assert page.ask("/predict", path.read_bytes(), FILE).status == 200
    assert watched.given == [path.read_bytes()]
