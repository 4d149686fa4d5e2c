"""The web application of a service: log-in, errors, and one answer for people (HTML) and programs (JSON)."""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar, get_origin
from urllib.parse import parse_qs

import structlog
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.staticfiles import StaticFiles

import diredi
from diredi import errors
from diredi.rpc.byte_counter import EgressMeter
from diredi.text import bytes_text, printable
from diredi.web import filters
from diredi.web.config import PagesConfig
from diredi.web.guard import Guard
from diredi.web.language import language_of, texts_in
from diredi.web.server import listen, serve, url_of
from diredi.web.sessions import Session, Sessions, Throttle

CONNECTIONS: Final = 256
LOGINS_A_MINUTE: Final = 20
CHANGES_A_MINUTE: Final = 600
HERE: Final = Path(__file__).parent
_STATUS: Final[dict[type[errors.DirediError], int]] = {
    errors.InvalidInput: 400,
    errors.NotFound: 404,
    errors.Refused: 403,
    errors.WrongState: 409,
    errors.NoRoom: 507,
    errors.Unreachable: 503,
}
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class NavItem:
    """One entry of the navigation."""

    path: str
    title: str


class WebApp:
    """A service's pages, behind a log-in by one-time link.

    Handlers are added to `api`, a FastAPI application. Each asks for `Viewing` or, if it changes something, `Changing`,
    and returns `answer(...)`.
    """

    def __init__(
        self,
        config: PagesConfig,
        title: str,
        open_command: str,
        nav: Sequence[NavItem],
        folder: Path,
        meter: EgressMeter | None = None,
    ) -> None:
        """Make the application; `run` serves it.

        Args:
            config: Where it is served.
            title: What the pages are of, such as "site-1".
            open_command: The command that makes a link, for whoever is not logged in.
            nav: The entries of the navigation; the first one is the start page.
            folder: The program's own `templates` and `static`, of which the second is served at /own.
            meter: Counts what is answered; None counts in memory.
        """
        self.config, self.title, self.open_command, self.nav = config, title, open_command, tuple(nav)
        self.sessions = Sessions(60 * config.idle_minutes, 3600 * config.longest_hours)
        self.meter = meter or EgressMeter()
        self.url = ""
        """Where the pages are, once they are served."""
        self.heading: Callable[[], dict[str, Any]] = dict
        """Returns what the head of every page shows beside the title, such as whether the cloud is connected."""
        self._logins, self._changes = Throttle(LOGINS_A_MINUTE), Throttle(CHANGES_A_MINUTE)
        # Browsers give a cookie to every port of a host, and another service of ours may be at the next one.
        self._cookie = ("__Host-" if config.has_tls else "") + "diredi-" + re.sub("[^A-Za-z0-9]", "-", title)
        self._loader = ChoiceLoader([FileSystemLoader(folder / "templates"), FileSystemLoader(HERE / "templates")])
        self._provided: dict[str, object] = {}
        self._environments: dict[str, Environment] = {}
        self.provide(bytes_text=bytes_text)
        self.api = FastAPI(
            title=f"DiReDi: {title}", version=diredi.__version__, openapi_url=None, docs_url=None, redoc_url=None
        )
        self.api.state.pages = self
        self._add_routes(folder)
        for error, handler in (
            (errors.DirediError, self._on_error), (HTTPException, self._on_http_error),
            (RequestValidationError, self._on_invalid), (Exception, self._on_defect),
        ):  # fmt: skip
            self.api.add_exception_handler(error, handler)
        self.uploads: dict[str, int] = {}
        """Paths that take files, which may be larger than other requests, and their most bytes."""
        self._app = Guard(self.api, config.names, self.meter, self.uploads, has_tls=config.has_tls)

    def _add_routes(self, folder: Path) -> None:
        api = self.api
        api.add_api_route("/login/{token}", self._log_in, include_in_schema=False)
        api.add_api_route("/logout", self._log_out, methods=["POST"], include_in_schema=False)
        api.add_api_route("/session", self._session, summary="Who is logged in, and the token that changes need.")
        api.add_api_route("/openapi.json", self._openapi, include_in_schema=False)
        api.add_api_route("/static/page.css", _page_css, include_in_schema=False)
        api.mount("/static", StaticFiles(directory=HERE / "static"))
        if (folder / "static").is_dir():
            api.mount("/own", StaticFiles(directory=folder / "static"))

    def provide(self, **values: object) -> None:
        """Give templates more values by name, such as texts of what programs call otherwise."""
        self._provided.update(values)

    async def run(self, announce: Callable[[str], None] | None = None) -> None:
        """Serve until this task is cancelled.

        Args:
            announce: Called with the URL as soon as the pages answer.

        Raises:
            WrongState: The address cannot be had.
            InvalidInput: The certificate cannot be used.
        """
        config = self.config
        tls = (config.certificate, config.key) if config.certificate and config.key else None
        with listen(*config.address, "pages.listen") as listening:
            self.url = url_of(listening, "https" if tls else "http")
            structlog.get_logger().info("web_server_started", url=self.url)
            if announce is not None:
                announce(self.url)
            await serve(self._app, listening, CONNECTIONS, tls)

    def link(self, person: str, role: str, certificate: bytes = b"") -> str:
        """Return the URL of a one-time link for a person with a role, whose session ends when a certificate does.

        Raises:
            WrongState: The pages are not served yet.
            NoRoom: Too many links wait to be used.
        """
        if not self.url:
            raise errors.WrongState("the pages are not served yet: try again in a second")
        return f"{self.url}login/{self.sessions.make_link(person, role, certificate)}"

    def answer(
        self, request: Request, template: str, view: BaseModel, *, status: int = 200, session: Session | None = None
    ) -> Response:
        """Answer with a page for a person, or with the same facts as JSON for a program, as the request accepts.

        Args:
            request: The request.
            template: Name of the page's template, which finds the facts as `view`.
            view: The facts.
            status: The status code.
            session: Who is logged in, if anybody.
        """
        if wants_json(request):
            return JSONResponse(view.model_dump(mode="json"), status)
        return HTMLResponse(self.render(request, template, view, session), status)

    def render(self, request: Request, template: str, view: BaseModel, session: Session | None = None) -> str:
        """Return a template with facts, as text in HTML."""
        language = language_of(request.headers.get("accept-language", ""))
        path = request.url.path
        here = next((item for item in reversed(self.nav) if path.startswith(item.path)), None)
        return self._environment_in(language).get_template(template).render(
            view=view, session=session, nav=self.nav, here=here, title=self.title, language=language,
            heading=self.heading() if session else {}, version=diredi.__version__, open_command=self.open_command,
        )  # fmt: skip

    def _environment_in(self, language: str) -> Environment:
        """Return the environment of a language, which holds its templates as code: one for each, made once."""
        if language not in self._environments:
            made = Environment(
                loader=self._loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                extensions=["jinja2.ext.i18n"],
            )  # fmt: skip
            made.filters.update(filters.FILTERS)
            made.globals.update(self._provided)
            made.install_gettext_translations(texts_in(language), newstyle=True)  # type: ignore[attr-defined]
            self._environments[language] = made
        return self._environments[language]

    def follow(
        self,
        request: Request,
        session: Session,
        render: Callable[[], str] | Callable[[], Awaitable[str]],
        every_s: float = 0.5,
    ) -> StreamingResponse:
        """Answer with server-sent events: a piece of a page, whenever it is another one than before.

        Args:
            request: The request.
            session: The stream ends with it.
            render: Returns the piece.
            every_s: How often to look, in seconds.
        """

        async def events() -> AsyncIterator[str]:
            last, quiet_s = "", 0.0
            while self.sessions.is_open(session):
                rendered = render()
                piece = rendered if isinstance(rendered, str) else await rendered
                if piece != last:
                    last, quiet_s = piece, 0.0
                    yield "".join(f"data: {line}\n" for line in piece.splitlines()) + "\n"
                elif quiet_s > 15:
                    quiet_s = 0.0
                    yield ": still here\n\n"
                await asyncio.sleep(every_s)
                quiet_s += every_s

        return StreamingResponse(events(), media_type="text/event-stream")

    def session_in(self, request: Request) -> Session | None:
        """Return the session of a request, if it has one."""
        return self.sessions.find(request.cookies.get(self._cookie, ""))

    async def check_change(self, request: Request, session: Session) -> None:
        """Refuse a change that the person did not ask for on a page of ours, or one of too many.

        Raises:
            Refused: The request comes from a page of somebody else, or lacks the session's token.
            HTTPException: There were too many changes in this minute.
        """
        token = request.headers.get("x-csrf-token", "")
        if not token and not is_json(request) and request.url.path not in self.uploads:
            token = (await _fields(request)).get("csrf", [""])[-1]
        foreign = request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}
        if foreign or not hmac.compare_digest(token.encode(), session.csrf.encode()):
            raise errors.Refused("that change did not come from a page of this session: open the page again")
        if not self._changes.allows(session.csrf):
            raise HTTPException(429, f"more than {CHANGES_A_MINUTE} changes in a minute: wait a little")

    async def _log_in(self, request: Request, token: str) -> Response:
        if not self._logins.allows(request.client.host if request.client else ""):
            raise HTTPException(429, f"more than {LOGINS_A_MINUTE} log-ins in a minute: wait a little")
        found = self.sessions.redeem(token)
        if found is None:
            structlog.get_logger().warning("page_login_refused", client=request.client and request.client.host)
            return self.answer(
                request, "login.html", Problem(error="the link was used already, or is too old"), status=403
            )
        secret, session = found
        structlog.get_logger().info("page_session_begun", person=session.person, role=session.role)
        answer = RedirectResponse(self.nav[0].path, 303)
        answer.set_cookie(self._cookie, secret, httponly=True, samesite="strict", secure=self.config.has_tls, path="/")
        return answer

    async def _log_out(self, session: Changing) -> Response:
        self.sessions.end(session)
        structlog.get_logger().info("page_session_ended", person=session.person)
        answer = RedirectResponse("/", 303)
        answer.delete_cookie(self._cookie, path="/", secure=self.config.has_tls, httponly=True, samesite="strict")
        return answer

    async def _session(self, session: Viewing) -> SessionView:
        return SessionView(person=session.person, role=session.role, csrf=session.csrf)

    async def _openapi(self, session: Viewing) -> Response:
        return JSONResponse(self.api.openapi())

    async def _on_error(self, request: Request, error: Exception) -> Response:
        if isinstance(error, NotLoggedIn):
            return self.answer(request, "login.html", Problem(error=str(error)), status=401)
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
        return self._problem(request, str(error), status)

    async def _on_http_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        text = "there is no such page" if error.status_code == 404 else str(error.detail)
        return self._problem(request, text, error.status_code)

    async def _on_invalid(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return self._problem(request, _explain(error.errors()), 400)

    async def _on_defect(self, request: Request, error: Exception) -> Response:
        reference = secrets.token_hex(4)
        structlog.get_logger().error("page_failed", reference=reference, path=request.url.path, exc_info=error)
        return self._problem(request, f"something is wrong here; the log of the service says what: {reference}", 500)

    def _problem(self, request: Request, text: str, status: int) -> Response:
        return self.answer(
            request, "problem.html", Problem(error=text), status=status, session=self.session_in(request)
        )


class NotLoggedIn(errors.Refused):
    """There is no session, or it has ended."""


class Problem(BaseModel):
    """Why a request was not answered as it was meant."""

    error: str


class SessionView(BaseModel):
    """Who is logged in."""

    person: str
    role: str
    csrf: str
    """What each change must have as the header X-CSRF-Token or the field `csrf`."""


def pages_of(request: Request) -> WebApp:
    """Return the application that a request is for."""
    found: WebApp = request.app.state.pages
    return found


async def _viewing(request: Request) -> Session:
    session = pages_of(request).session_in(request)
    if session is None:
        raise NotLoggedIn("nobody is logged in here, or the session has ended")
    return session


Viewing = Annotated[Session, Depends(_viewing)]
"""Who looks at a page."""


async def _changing(request: Request, session: Viewing) -> Session:
    await pages_of(request).check_change(request, session)
    return session


Changing = Annotated[Session, Depends(_changing)]
"""Who changes something, after the checks that a change needs."""


def wants_json(request: Request) -> bool:
    """Return whether a request is a program's, which would rather have JSON than a page."""
    accept = request.headers.get("accept", "")
    return "text/html" not in accept and ("application/json" in accept or "*/*" in accept or not accept)


def is_json(request: Request) -> bool:
    """Return whether a request brings JSON along."""
    return request.headers.get("content-type", "").partition(";")[0].strip() == "application/json"


async def read(request: Request, model: type[_Model]) -> _Model:
    """Return what a request brings along, from the fields of a form or from JSON.

    Args:
        request: The request.
        model: What it must be.

    Raises:
        InvalidInput: It is not that.
    """
    fields = await _fields(request)
    fields.pop("csrf", None)
    if not is_json(request):  # every field of a form is a list
        many = {name for name, field in model.model_fields.items() if get_origin(field.annotation) is list}
        fields = {name: values if name in many else values[-1] for name, values in fields.items()}
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise errors.InvalidInput(_explain(error.errors())) from None


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return what OpenAPI says of a request that `read` reads."""
    schema = model.model_json_schema()
    kinds = ("application/json", "application/x-www-form-urlencoded")
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in kinds}}}


async def _fields(request: Request) -> dict[str, Any]:
    body = await request.body()
    if is_json(request):
        try:
            found = await request.json()
        except (ValueError, RecursionError):
            _refuse("the request is not JSON")
        return found if isinstance(found, dict) else _refuse("the request is no JSON object")
    try:
        return dict(parse_qs(body.decode(), keep_blank_values=True, max_num_fields=1000))
    except ValueError:
        _refuse("the request is no form in UTF-8")


def _refuse(why: str) -> NoReturn:
    raise errors.InvalidInput(f"{why}: see /openapi.json")


def _explain(found: Sequence[Any]) -> str:
    texts = (f"{'.'.join(str(part) for part in one['loc']) or 'request'}: {one['msg']}" for one in found[:5])
    return printable("; ".join(texts))[:500]


async def _page_css() -> Response:
    return FileResponse(Path(diredi.__file__).with_name("page.css"), headers={"cache-control": "no-cache"})
