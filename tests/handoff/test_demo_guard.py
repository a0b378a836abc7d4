"""The HTTP interface of ``cxrlit demo``: whom it answers, and how much it takes."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from bundles import write_images

from cxrlit import Predictor

pytest.importorskip("starlette")

from demos import FILE, Served, Watched, check_described, serve_here
from starlette.datastructures import Headers

from cxrlit.handoff.demo.guard import is_own
from cxrlit.handoff.demo.intake import Limits

HOSTS = (
    *(b"evil.example", b"localhost.evil", b"a@localhost", b"localhost, localhost", b"127.1", b"\xb9\xb2\xb7.0.0.1"),
    *(b"", b"[", b"]", b"[::1]:7860", b"localhost:", b"localhost:99a", b"localhost:1:2", b"localhost:\xb2"),
    b"localhost/",
)
ORIGINS = (
    *(b"https://evil.example", b"https://127.0.0.1:7860", b"http://127.0.0.1", b"http://127.0.0.1:7861"),
    *(b"", b"null", b"[", b"http://[", b"http://\xb9", b"http://localhost:7860"),
)
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data; boundary=a", "text/plain", "text/html", "")


class TestFromElsewhere:
    @pytest.mark.parametrize("value", HOSTS)
    def test_another_host_gets_nothing(self, served: Served, png: bytes, value: bytes) -> None:
        for answered in (
            served.ask("/", headers={"Host": value}),
            served.ask("/predict", png, {**FILE, "Host": value}),
        ):
            assert answered.status in {400, 403}  # some are no host at all to uvicorn

    @pytest.mark.parametrize("value", ORIGINS)
    def test_a_page_of_another_origin_gets_nothing(self, served: Served, png: bytes, value: bytes) -> None:
        headers = {**FILE, "Host": "127.0.0.1:7860", "Origin": value}
        for answered in (served.ask("/", headers=headers), served.ask("/predict", png, headers)):
            assert answered.status == 403
            check_described(answered, "/predict")

    @pytest.mark.parametrize("name", ["Host", "Origin"])
    def test_a_request_of_two_addresses_gets_nothing(self, served: Served, name: str) -> None:
        own = {"Host": served.host, "Origin": served.address}[name]
        lines = ["GET / HTTP/1.1", *([f"Host: {served.host}"] if name == "Origin" else [])]
        with closing(served.connect(*lines, f"{name}: {own}", f"{name}: http://evil.example")) as one:
            assert one.recv(2**16).split()[1] in {b"400", b"403"}

    def test_two_hosts_are_none_whatever_serves(self) -> None:
        """uvicorn refuses such a request before the guard sees it."""
        assert is_own(Headers(raw=[(b"host", b"localhost")]))
        assert not is_own(Headers(raw=[(b"host", b"localhost"), (b"host", b"evil.example")]))

    def test_a_request_without_a_host_gets_nothing(self, served: Served) -> None:
        with closing(served.connect("GET / HTTP/1.0")) as one:
            assert one.recv(2**16).split()[1] == b"403"

    def test_a_tunnel_to_another_port_is_the_page(self, served: Served) -> None:
        headers = {"Host": "localhost:9000", "Origin": "http://localhost:9000"}
        assert served.ask("/", headers=headers).status == 200

    @pytest.mark.parametrize("kind", FORMS)
    def test_what_any_site_may_post_is_refused(self, served: Served, png: bytes, kind: str) -> None:
        answered = served.ask("/predict", png, {"Content-Type": kind})
        check_described(answered, "/predict")
        assert answered.status == 415

    def test_no_browser_is_told_that_other_sites_may_ask(self, served: Served) -> None:
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        for origin, status in (("http://evil.example", 403), (served.address, 405)):
            answered = served.ask("/predict", headers={**asked, "Origin": origin}, method="OPTIONS")
            assert answered.status == status
            assert not [name for name in answered.headers if name.lower().startswith("access-control")]

    def test_every_answer_tells_the_browser_to_keep_to_itself(self, served: Served, png: bytes) -> None:
        for answered in (served.ask("/"), served.ask("/nothing"), served.predict(png), served.predict(b"")):
            headers = answered.headers
            assert headers["Cache-Control"] == "no-store"
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]

    @pytest.mark.parametrize(
        "path", ["/docs", "/redoc", "/static/../../etc/passwd", "/..%2f..%2fetc/passwd", "//etc/passwd", "/predict/"]
    )
    def test_nothing_else_is_served(self, served: Served, path: str) -> None:
        assert served.ask(path).status == 404
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Key": "a",
            "Sec-WebSocket-Version": "13",
        }
        assert served.ask(path, headers=upgrade).status == 404


class TestLimits:
    def test_what_is_too_large_is_refused(self, predictor: Predictor, tmp_path: Path, png: bytes) -> None:
        with serve_here(predictor, tmp_path, Limits(file_bytes=2**20)) as service:
            large = bytes(2**20 + 1)
            whole = service.predict(large)
            in_parts = service.ask("/predict", iter([large[: 2**19], large[2**19 :]]), FILE, encode_chunked=True)
            with closing(service.begin(2**60)) as one:
                assert one.recv(2**16).startswith(b"HTTP/1.1 413")
            for answered in (whole, in_parts):
                check_described(answered, "/predict")
                assert (answered.status, answered.body) == (413, {"error": "larger than 1 MiB"})
            assert service.ask("/health").body["waiting"] == 0
            assert service.predict(png).status == 200

    def test_too_many_files_are_told_to_come_back(self, predictor: Predictor, tmp_path: Path, png: bytes) -> None:
        with serve_here(predictor, tmp_path, Limits(n_files=2)) as service, ExitStack() as stack:
            first, _ = (stack.enter_context(closing(service.begin(len(png), png[:9]))) for _ in range(2))
            service.await_waiting(2)
            answered = service.predict(png)
            check_described(answered, "/predict")
            assert (answered.status, answered.headers["Retry-After"]) == (503, "5")
            first.sendall(png[9:])
            assert first.recv(2**16).startswith(b"HTTP/1.1 200")
            assert service.predict(png).status == 200

    def test_files_that_take_too_much_memory_together_too(
        self, predictor: Predictor, tmp_path: Path, png: bytes
    ) -> None:
        with serve_here(predictor, tmp_path, Limits(all_bytes=len(png) + 9)) as service:
            with closing(service.begin(len(png), png[:10])):
                service.await_waiting(1)
                # Its ten bytes may not be there yet.
                assert any(service.predict(png).status == 503 for _ in range(100))
            service.await_waiting(0)
            assert service.predict(png).status == 200

    def test_one_that_stays_silent_is_given_up(self, predictor: Predictor, tmp_path: Path) -> None:
        with serve_here(predictor, tmp_path, Limits(seconds=0.05)) as service, closing(service.begin(9, b"abc")) as one:
            assert one.recv(2**16).startswith(b"HTTP/1.1 408")
            service.await_waiting(0)

    def test_one_that_has_gone_is_not_predicted(self, predictor: Predictor, tmp_path: Path) -> None:
        files = [path.read_bytes() for path in write_images(tmp_path, 3)]
        watched = Watched(predictor)
        watched.may_begin.clear()
        with serve_here(watched, tmp_path) as service, ThreadPoolExecutor(1) as pool:
            first = pool.submit(service.predict, files[0])
            service.await_waiting(1)
            gone = service.begin(len(files[1]), files[1])
            service.await_waiting(2)
            gone.close()
            with closing(service.begin(len(files[2]), files[2])) as last:
                service.await_waiting(3)
                watched.may_begin.set()
                assert first.result().status == 200
                assert last.recv(2**16).startswith(b"HTTP/1.1 200")
            assert watched.given == [files[0], files[2]]
