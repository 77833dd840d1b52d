"""A webhook: JSON by POST to an address that nobody may read in a log."""

import json
import logging
import time
from collections.abc import Mapping

import urllib3

logger = logging.getLogger(__name__)

_PAUSE_S = 1.0  # before the second attempt, twice as long before each further one


def post(url: str, content: Mapping[str, object], *, timeout_s: float, attempts: int) -> bool:
    """Sends JSON; tries again where the server is away or busy.

    What goes wrong is told in the log, without the address: who has it can write to the channel.
    Redirections are not followed: the secret would go elsewhere.

    Args:
        url: http or https; white space around it is left away.
        content: What is sent.
        timeout_s: Of an attempt.
        attempts: How many there are at most.

    Returns:
        Whether it was taken.
    """
    url = url.strip()  # a secret made from a file ends in a new line
    if not url.startswith(("http://", "https://")):
        logger.warning("the webhook's address is no http or https URL; mend its secret")
        return False
    body = json.dumps(content, allow_nan=False).encode()
    for attempt in range(1, attempts + 1):
        problem, is_final = _try(url, body, timeout_s)
        if not problem:
            return True
        logger.warning("the webhook, attempt %d of %d: %s", attempt, attempts, problem)
        if is_final:
            break
        if attempt < attempts:
            time.sleep(_PAUSE_S * 2 ** (attempt - 1))
    return False


def _try(url: str, body: bytes, timeout_s: float) -> tuple[str, bool]:
    """What went wrong, if anything, and whether another attempt would be in vain."""
    # urllib3's own retries would write the address to the log
    http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(total=timeout_s))
    headers = {"Content-Type": "application/json"}
    try:
        answer = http.request("POST", url, body=body, headers=headers, redirect=False)
    except urllib3.exceptions.LocationValueError:
        return "the address is not understood; mend its secret", True
    except urllib3.exceptions.HTTPError as error:
        return f"no answer ({type(error).__name__})", False
    finally:
        http.clear()
    if 200 <= answer.status < 300:
        return "", True
    busy = answer.status == 429 or answer.status >= 500
    return f"it answered {answer.status}", not busy
