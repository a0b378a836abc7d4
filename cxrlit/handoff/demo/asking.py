"""What a page may ask: the events that it has, with the values that their inputs can take, and nothing else."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cxrlit.handoff.demo.uploads import Uploads

Values = frozenset[str] | None
"""What an input can be beside null, which stands for its default; None: it is an upload."""

Events = Mapping[int, Sequence[Values]]
"""The inputs of each event, by its number."""


class Question(NamedTuple):
    """An event, as Gradio is told of it.

    Attributes:
        body: JSON, of what was checked alone.
        upload: The path of the upload that it is about; empty where it is about none.
    """

    body: bytes
    upload: str


def read_question(content: bytes, events: Events, uploads: Uploads) -> Question | None:
    """Read the body of a request; None where it is not one that the page makes.

    Args:
        content: Of anybody.
        events: Of the page.
        uploads: What may be asked about.
    """
    try:
        asked = json.loads(content)
        number, data, session = asked["fn_index"], asked["data"], asked["session_hash"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    is_ours = type(number) is int and number in events and isinstance(session, str) and isinstance(data, list)
    if not is_ours or not (session.isascii() and session.isalnum()) or len(data) != len(events[number]):
        return None
    upload = ""
    passed: list[dict[str, Any] | str | None] = []
    for given, values in zip(data, events[number], strict=True):
        if values is None:
            if not isinstance(given, dict) or not uploads.is_unasked(upload := given.get("path", "")):
                return None
            passed.append(_describe_file(upload, given.get("orig_name")))
        elif given is None or (isinstance(given, str) and given in values):
            passed.append(given)
        else:
            return None
    trigger = asked.get("trigger_id")
    told = {
        "data": passed,
        "fn_index": number,
        "session_hash": session,
        "trigger_id": trigger if type(trigger) is int else None,
    }
    return Question(json.dumps(told).encode(), upload)


def _describe_file(path: str, name: object) -> dict[str, Any]:
    shown = name.encode("utf-8", "replace").decode() if isinstance(name, str) else "the file"
    return {"path": path, "orig_name": shown, "meta": {"_type": "gradio.FileData"}}
