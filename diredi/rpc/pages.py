"""PageService: hands out one-time links to the web pages of a server. A cloud and a user domain serve it alike."""

# ruff: noqa: ANN401  (gRPC gives its contexts no type of their own)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from diredi.errors import Refused, WrongState
from diredi.rpc.caller import caller_certificate, caller_identity
from diredi.rpc.v1 import pages_pb2 as pb
from diredi.rpc.v1 import pages_pb2_grpc as stubs
from diredi.text import printable
from diredi.trust.identity import Identity

MAX_PERSON = 100


class PageServicer(stubs.PageServiceServicer):
    """Make links for callers who may open the pages."""

    def __init__(
        self, link: Callable[[str, str, bytes], str] | None, is_allowed: Callable[[Identity], bool], whom: str
    ) -> None:
        """Make it.

        Args:
            link: Returns a link for a person with a role and a certificate (`diredi.web.app.WebApp.link`); None: there
                are no pages.
            is_allowed: Whether an identity may open the pages.
            whom: Who may, for the message to others.
        """
        self._link, self._is_allowed, self._whom = link, is_allowed, whom

    async def OpenPages(self, request: pb.OpenPagesRequest, context: Any) -> pb.OpenPagesResponse:  # noqa: D102
        caller = caller_identity(context)
        if not self._is_allowed(caller):
            raise Refused(f"{caller} may not open these pages: they are for {self._whom}")
        if self._link is None:
            raise WrongState("this service has no pages: set pages.listen, such as 127.0.0.1:8480, and start it again")
        said = printable(request.person.strip())[:MAX_PERSON]
        person = f"{caller} ({said})" if said else str(caller)
        structlog.get_logger().info("page_link_made", person=person)
        return pb.OpenPagesResponse(url=self._link(person, caller.role, caller_certificate(context)))
