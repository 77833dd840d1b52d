"""Reports of failing steps: KFP keeps the log of a failed task, but no artifact."""

from components.shared.dataset.manifest import short_digest
from components.shared.errors import UserError
from components.shared.storage.store import Store


def keep_report(store: Store, name: str, content: bytes, noun: str) -> str:
    """Stores a report before its step fails.

    The key is `reports/<digest of the content>/<name>`, so that a failure repeated every night
    is one object. Only the message refers to it, so it may be deleted at any time.

    Args:
        store: Store of the data set.
        name: File name, e.g. `profile.html`.
        content: Bytes of the report.
        noun: Name of the report in the message, e.g. `page`.

    Returns:
        A sentence for the end of the step's message: the address of the report, or the store's
        error. The latter is not raised, because it would hide why the step fails.
    """
    key = f"reports/{short_digest(content)}/{name}"
    try:
        store.write(key, content)
    except UserError as error:
        return f"The {noun} could not be stored: {error}"
    return f"The {noun} {store.uri}/{key} shows more"
