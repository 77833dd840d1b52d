"""What a step that fails leaves behind: KFP keeps the log of a failed task, and no artifact."""

from components.shared.dataset.manifest import short_digest
from components.shared.errors import UserError
from components.shared.storage.store import Store


def keep_report(store: Store, name: str, content: bytes, noun: str) -> str:
    """Stores a report before its step fails, and says where it is.

    It goes to `reports/<digest of the content>/<name>`: the same failure night after night is
    one object. Nothing refers to it but the message, so it may be deleted at any time.

    Args:
        store: Where the data set is.
        name: Of the file, e.g. `profile.html`.
        content: The report.
        noun: What it is called, e.g. `page`.

    Returns:
        A sentence for the end of the message. If the store refuses, it says so: the step's own
        reason must not be lost behind that.
    """
    key = f"reports/{short_digest(content)}/{name}"
    try:
        store.write(key, content)
    except UserError as error:
        return f"The {noun} could not be kept: {error}"
    return f"The {noun} {store.uri}/{key} shows more"
