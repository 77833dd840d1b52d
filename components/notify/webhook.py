"""Webhook requests: JSON by POST, with an address that is never logged."""

import json
import logging
import time
from collections.abc import Mapping

import urllib3

logger = logging.getLogger(__name__)

_PAUSE_S = 1.0  # before the second attempt; doubles before each further attempt


def post(url: str, content: Mapping[str, object], *, timeout_s: float, attempts: int) -> bool:
    """Sends JSON, and tries again if the server is unreachable or busy.

    Problems are logged without the address, which is enough to write to the channel. Redirections
    are not followed, because they would send the secret elsewhere.

    Args:
        url: http or https address, possibly surrounded by white space.
        content: Content of the request.
        timeout_s: Time limit of an attempt in seconds.
        attempts: Largest number of attempts.

    Returns:
        True if the server accepted the request.
    """
    url = url.strip()  # a secret created from a file ends in a new line
    if not url.startswith(("http://", "https://")):
        logger.warning("the webhook's address is not an http or https URL; fix its secret")
        return False
    body = json.dumps(content, allow_nan=False).encode()
    for attempt in range(1, attempts + 1):
        problem, is_final = _try(url, body, timeout_s)
        if not problem:
            return True
        logger.warning("the webhook, attempt %d of %d: %s", attempt, attempts, problem)
        if is_final or attempt == attempts:
            break
        time.sleep(_PAUSE_S * 2 ** (attempt - 1))
    return False


def _try(url: str, body: bytes, timeout_s: float) -> tuple[str, bool]:
    """Returns the problem, if any, and whether further attempts are useless."""
    try:
        answer = urllib3.request(
            "POST",
            url,
            body=body,
            headers={"Content-Type": "application/json"},
            redirect=False,
            retries=False,  # they would write the address to the log
            timeout=urllib3.Timeout(total=timeout_s),
        )
    except urllib3.exceptions.LocationValueError:
        return "the address is invalid; fix its secret", True
    except urllib3.exceptions.HTTPError as error:
        return f"no answer ({type(error).__name__})", False
    if 200 <= answer.status < 300:
        return "", True
    return f"it answered {answer.status}", answer.status != 429 and answer.status < 500
