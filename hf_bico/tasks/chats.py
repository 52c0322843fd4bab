"""The chats of a dataset, whatever it calls speakers and contents."""

from collections.abc import Mapping
from typing import Any

from hf_bico.core.errors import PortError
from hf_bico.families.chat import ASSISTANT

Messages = tuple[dict[str, str], ...]
SPEAKERS = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant"}
"""What datasets call speakers → their roles in a chat template."""


def chat_of(index: int, values: Mapping[str, Any]) -> tuple[Messages, Messages | None]:
    """Return the messages of a row, and those that answer them where the row has them apart.

    Args:
        index: the row's, for errors.
        values: role → value: "messages", or "prompt" and "completion".

    Raises:
        PortError: there is no message, one that is no text, or no turn of the assistant to ask for.
    """
    if "messages" in values:
        inputs, answer = _messages(index, values["messages"]), None
    else:
        inputs, answer = _messages(index, values["prompt"]), values["completion"]
        said = [{"role": ASSISTANT, "content": answer}] if isinstance(answer, str) else answer
        answer = _messages(index, said)
    if all(message["role"] != ASSISTANT for message in answer or inputs):
        raise PortError(
            f"row {index} has no turn of the assistant, so that nothing is asked for: leave such rows out of the "
            "dataset, or name another split"
        )
    return inputs, answer


def _messages(index: int, value: Any) -> tuple[dict[str, str], ...]:
    """Return messages with role and content each, whatever the dataset calls them."""
    messages = tuple(
        {
            "role": SPEAKERS.get(speaker := one.get("role") or one.get("from"), speaker),
            "content": _said(one["content"] if "content" in one else one.get("value")),
        }
        for one in value or ()
    )
    if not messages or not all(isinstance(text, str) for one in messages for text in one.values()):
        raise PortError(
            f"row {index} has no messages, or one that is no text: leave such rows out of the dataset, or "
            "name another split"
        )
    return messages


def _said(content: Any) -> Any:
    """Return a message's content; where it is a list of texts, as one."""
    if isinstance(content, list) and content and all(isinstance(part, dict) for part in content):
        texts = [part.get("text") for part in content if part.get("type", "text") == "text"]
        return "".join(texts) if len(texts) == len(content) and all(isinstance(t, str) for t in texts) else None
    return content
