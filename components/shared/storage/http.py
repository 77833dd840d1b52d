"""HTTP connections to S3 services: proxies, certificates, and answers that no S3 service gives."""

import contextlib
import ipaddress
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi
import urllib3
from minio.error import MinioException

from components.shared.errors import UserError
from components.shared.printable import printable

_SHOWN_BYTES = 4096  # of an answer that is not S3's


class Http(urllib3.PoolManager):
    """Connections by way of the proxies that the environment names."""

    def __init__(self, connect_s: float, read_s: float, retries: urllib3.Retry) -> None:
        self._options: dict[str, Any] = {
            "timeout": urllib3.Timeout(connect=connect_s, read=read_s),
            "maxsize": 16,
            "cert_reqs": "CERT_REQUIRED",
            "ca_certs": authorities(),
            "retries": retries,
        }
        self._by_proxy: dict[str, urllib3.ProxyManager] = {}
        super().__init__(**self._options)

    def urlopen(  # type: ignore[override] # minio gives all arguments by name
        self,
        method: str,
        url: str,
        **options: Any,  # noqa: ANN401
    ) -> urllib3.BaseHTTPResponse:
        proxy = proxy_of(url)
        if proxy is None:
            return super().urlopen(method, url, redirect=False, **options)
        if proxy not in self._by_proxy:
            login = unquote(urlsplit(proxy).netloc.rpartition("@")[0])
            headers = urllib3.make_headers(proxy_basic_auth=login) if login else None
            self._by_proxy[proxy] = urllib3.ProxyManager(
                proxy, proxy_headers=headers, **self._options
            )
        return self._by_proxy[proxy].urlopen(method, url, redirect=False, **options)


class S3Http(Http):
    """Connections to a service that must answer as S3 does."""

    def urlopen(  # type: ignore[override] # minio gives all arguments by name
        self,
        method: str,
        url: str,
        **options: Any,  # noqa: ANN401
    ) -> urllib3.BaseHTTPResponse:
        response = super().urlopen(method, url, **options)
        if not _is_of_s3(method, url, response):
            whole = options.get("preload_content", True)
            start = response.data if whole else response.read(_SHOWN_BYTES)
            raise ForeignAnswerError(_description(response, start[:_SHOWN_BYTES]))
        return response


class ForeignAnswerError(MinioException):
    """An answer that no S3 service gives; the text describes it."""


def proxy_of(url: str) -> str | None:
    """Returns the address of the proxy for a URL, by the rules of the standard library."""
    parts = urlsplit(url)
    with contextlib.suppress(ValueError):  # a name, no address
        if ipaddress.ip_address(parts.hostname or "").is_link_local:  # a metadata service
            return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not proxy.startswith(("http://", "https://")):
        raise UserError(
            f"the proxy for {parts.netloc} is of the kind {proxy.partition('://')[0]!r}; give an "
            "http or https proxy in HTTPS_PROXY or HTTP_PROXY, or name the host in NO_PROXY"
        )
    return proxy


def _is_of_s3(method: str, url: str, response: urllib3.BaseHTTPResponse) -> bool:
    _, _, path, query, _ = urlsplit(url)
    if response.status >= 300:
        return method == "HEAD" or "xml" in response.headers.get("content-type", "")
    if "list-type=" in query:
        return b"ListBucketResult" in response.data[:_SHOWN_BYTES]
    if query or method not in ("GET", "PUT") or "/" not in path.strip("/"):
        return "text/html" not in response.headers.get("content-type", "")
    return "etag" in response.headers  # which every answer about an object has


def _description(response: urllib3.BaseHTTPResponse, start: bytes) -> str:
    kind = response.headers.get("content-type", "")
    title = re.search(rb"<title[^>]*>([^<]{1,80})", start, re.IGNORECASE)
    if not start:
        found = "nothing"
    elif "html" in kind or title:
        found = f"the web page {_text(title[1])!r}" if title else "a web page"
    else:
        found = "other XML" if "xml" in kind else f"content of type {kind!r}"
    return f"it answers with {found}, status {response.status}"


def _text(data: bytes) -> str:
    return printable(" ".join(data.decode(errors="replace").split()))


def authorities() -> str:
    """Returns the file of trusted certificate authorities.

    Raises:
        UserError: If a variable names a file that does not exist.
    """
    for variable in ("AWS_CA_BUNDLE", "SSL_CERT_FILE"):
        file = os.environ.get(variable)
        if file and not Path(file).is_file():
            raise UserError(
                f"{variable} names {file!r}, where there is no file; correct or unset it"
            )
        if file:
            return file
    return certifi.where()
