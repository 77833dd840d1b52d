import pytest

from components.shared.errors import OutageError, UserError
from components.shared.storage.http import proxy_of
from components.shared.storage.store import open_store
from tests.components.shared.storage.test_s3 import point_at, refusal

PAGE = (200, "text/html", b"<!doctype html><html><title>Sign\n in</title></html>")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (PAGE, "it answers with the web page 'Sign in', status 200"),
        ((403, *PAGE[1:]), "it answers with the web page 'Sign in', status 403"),
        ((404, "text/html", b"<html>Not here</html>"), "it answers with a web page, status 404"),
        ((302, "text/html", b""), "it answers with nothing, status 302"),
        ((200, "application/xml", b""), "it answers with nothing, status 200"),
        ((200, "application/xml", b"<feed/>"), "it answers with other XML"),
        ((400, "application/xml", b"<feed/>"), "it answers with other XML"),
        ((400, "application/xml", b"<feed"), "its answer is malformed"),
        ((200, "text/plain", b"It works!"), "it answers with content of type 'text/plain', status"),
    ],
)
def test_an_answer_that_is_not_of_s3_is_described(monkeypatch, web_server, answer, told):
    point_at(monkeypatch, web_server(answer=answer))
    store = open_store("s3://bucket/prefix")
    for use in (
        lambda: store.write("one", b"1"),
        lambda: store.read("one"),
        lambda: store.exists("one"),
        lambda: list(store.keys("a/")),
    ):
        with pytest.raises(
            UserError, match=r"does not answer as S3 does \(.*\); check host, po"
        ) as e:
            use()
        assert told in str(e.value)
        assert "in AWS_ENDPOINT_URL" in str(e.value)


def test_a_page_is_no_removal(monkeypatch, web_server):
    point_at(monkeypatch, web_server(answer=PAGE))
    with pytest.raises(UserError, match="does not answer as S3 does"):
        open_store("s3://bucket/prefix").delete("one")


@pytest.mark.parametrize("broken", [b"<Contents><Key>a/1</Key>", b"</ListBucketResult>", b"\xff"])
def test_a_listing_that_breaks_off_is_not_of_s3(monkeypatch, web_server, broken):
    broken = b"<ListBucketResult>" + broken
    point_at(monkeypatch, web_server(answer=(200, "application/xml", broken)))
    with pytest.raises(UserError, match="its answer is malformed"):
        list(open_store("s3://bucket/prefix").keys("a/"))


def test_a_redirect_is_not_followed_with_the_signed_request(monkeypatch, web_server):
    elsewhere = web_server(answer=PAGE)
    point_at(monkeypatch, web_server(answer=(302, "text/html", b"moved"), Location=elsewhere))
    assert "it answers with a web page, status 302" in refusal()


class TestProxy:
    @pytest.fixture(autouse=True)
    def _no_proxies(self, monkeypatch):
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            for variable in (name, name.upper()):
                monkeypatch.delenv(variable, raising=False)
        point_at(monkeypatch, "http://s3.test.invalid")

    @pytest.fixture
    def proxy(self, web_server):
        error = b"<Error><Code>Teapot</Code></Error>"
        return web_server(answer=(418, "application/xml", error))

    @pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
    def test_requests_go_through_it(self, monkeypatch, proxy, variable):
        monkeypatch.setenv(variable, proxy)
        assert "the server answered Teapot" in refusal()

    def test_its_address_needs_no_scheme(self, monkeypatch, proxy):
        monkeypatch.setenv("HTTP_PROXY", proxy.removeprefix("http://"))
        assert "the server answered Teapot" in refusal()

    def test_its_login_is_sent(self, monkeypatch, proxy, seen):
        monkeypatch.setenv("HTTP_PROXY", proxy.replace("//", "//me:p%40ss@"))
        refusal()
        assert seen[-1]["Proxy-Authorization"] == "Basic bWU6cEBzcw=="  # me:p@ss

    @pytest.mark.parametrize("hosts", ["*", "s3.test.invalid", ".invalid"])
    def test_hosts_are_excepted(self, monkeypatch, proxy, hosts):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", hosts)
        message = refusal(OutageError)
        assert "no answer from http://s3.test.invalid; check AWS_ENDPOINT_URL" in message

    def test_metadata_services_are_excepted(self, monkeypatch, proxy):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        assert proxy_of("http://169.254.169.254/latest") is None
        assert proxy_of("http://s3.test.invalid/bucket") == proxy

    def test_of_https_it_is_a_tunnel(self, monkeypatch, proxy):
        point_at(monkeypatch, "https://s3.test.invalid")
        monkeypatch.setenv("HTTPS_PROXY", proxy)  # which refuses the tunnel
        message = refusal(OutageError)
        assert "no answer from https://s3.test.invalid, through the proxy that HTTPS_" in message
        assert "name the host in NO_PROXY" in message

    def test_that_is_down_is_named(self, monkeypatch):
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        assert "through the proxy that HTTPS_PROXY or HTTP_PROXY names" in refusal(OutageError)

    def test_its_block_page_is_named(self, monkeypatch, web_server):
        monkeypatch.setenv("HTTP_PROXY", web_server(answer=(407, *PAGE[1:])))
        message = refusal()
        assert "through the proxy that HTTPS_PROXY or HTTP_PROXY names, does not answer" in message

    def test_of_another_kind_is_refused(self, monkeypatch):
        monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
        assert "is of the kind 'socks5'; give an http or https proxy" in refusal()
