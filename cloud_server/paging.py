"""Pages of lists: no answer grows with what there is, and a page ends before its message would be too large."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from diredi.errors import InvalidInput
from diredi.rpc.limits import MAX_MESSAGE_BYTES

PAGE_BYTES: Final = MAX_MESSAGE_BYTES // 2
"""A page ends here, so that with the item that goes beyond it the message can still be received."""
MAX_PAGE_SIZE: Final = 1000

Item = TypeVar("Item")
Made = TypeVar("Made", bound=Message)


@dataclass(frozen=True)
class Page:
    """What a request asks for: so many items, behind the one whose key is `after` (empty: from the beginning)."""

    after: str
    size: int

    @classmethod
    def of(cls, request: Any, default: int = MAX_PAGE_SIZE) -> Page:  # noqa: ANN401 - any request with the two fields
        """Return the page that a request with `page_size` and `page_token` asks for.

        Raises:
            InvalidInput: The token is none that a list gives.
        """
        if len(request.page_token) > 300 or not request.page_token.isprintable():
            raise InvalidInput("page_token is not one: send the next_page_token of the page before")
        return cls(request.page_token, min(request.page_size or default, MAX_PAGE_SIZE))

    @property
    def wanted(self) -> int:
        """Return how many items to look for: one more than the page has, which tells whether there is a next page."""
        return self.size + 1

    def fill(
        self, items: Sequence[Item], key: Callable[[Item], str], to_message: Callable[[Item], Made]
    ) -> tuple[list[Made], str]:
        """Convert items until the page is full.

        Args:
            items: Up to `wanted` items, the first of the page first.
            key: Returns what identifies an item, as `after` names it.
            to_message: Converts an item.

        Returns:
            The messages, and the token of the next page; empty where there is none.
        """
        messages: list[Made] = []
        total = 0
        for item in items[: self.size]:
            message = to_message(item)
            total += message.ByteSize()
            if messages and total > PAGE_BYTES:
                break
            messages.append(message)
        return messages, key(items[len(messages) - 1]) if len(items) > len(messages) else ""
