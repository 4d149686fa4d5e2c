"""The command `diredi box`, and what it prints."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diredi.errors import InvalidInput, NotFound, WrongState
from diredi_cli.options import AsJson, image_size_option
from diredi_cli.output import emit, facts, note, progress

if TYPE_CHECKING:
    from rich.table import Table

    from diredi_box.box import Links
    from diredi_box.folder import BoxFolder
    from diredi_box.options import BoxOptions

_FIRST = "The first start"
_MIB_DETECTING, _MIB_DISK = 600, 1000


def box(
    camera: Annotated[
        list[str] | None,
        typer.Option(
            "--camera",
            metavar="[NAME=]SOURCE",
            help="A camera, such as rtsp://10.0.0.7/stream1, /dev/video0 or folder:PATH; repeat for more.",
        ),
    ] = None,
    folder: Annotated[
        Path, typer.Option("--folder", metavar="DIR", help="Where all of the box is: keys, releases, frames, logs.")
    ] = Path("diredi-box"),
    student: Annotated[
        Path | None,
        typer.Option(
            "--student", metavar="FILE", help="Weights to begin with; else the starter release.", rich_help_panel=_FIRST
        ),
    ] = None,
    tutor: Annotated[
        Path | None,
        typer.Option(
            "--tutor", metavar="FILE", help="Weights of a larger detector; else the student's.", rich_help_panel=_FIRST
        ),
    ] = None,
    image_size: Annotated[int | None, image_size_option(_FIRST)] = None,
    credentials: Annotated[
        Path | None,
        typer.Option("--credentials", metavar="FILE", help="User names and passwords of cameras, in netrc format."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            metavar="N",
            min=1,
            max=65533,
            help="The first of three ports of this machine: the site's pages, the console, the edge node's page.",
            show_default="8480",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="YAML with changes: cloud, site, edge.")
    ] = None,
    open_: Annotated[
        bool, typer.Option("--open", help="Only print new links to the pages of the box that runs in DIR.")
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Only stop the box that runs in DIR.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run cloud, site and edge node on this machine, with your cameras, until Ctrl-C.

    All of it is in one folder. Started again on that folder it goes on where it was, and needs no option: what it was
    told is remembered, and an option that is given again replaces what was.
    """
    from diredi_box.folder import BoxFolder

    place = BoxFolder(folder)
    if stop:
        _stop(place, as_json)
    elif open_:
        _open(place, as_json)
    else:
        options = _options(place, camera, student, tutor, image_size, credentials, port, config)
        _run(place, options, as_json)


def _options(
    folder: BoxFolder,
    cameras: list[str] | None,
    student: Path | None,
    tutor: Path | None,
    image_size: int | None,
    credentials: Path | None,
    port: int | None,
    config: Path | None,
) -> BoxOptions:
    """What was asked for now, and for the rest what the box was told before."""
    from diredi_box.options import BoxOptions, cameras_in, read_config

    for name, path in (("student", student), ("tutor", tutor), ("credentials", credentials)):
        if path is not None and not path.is_file():
            raise NotFound(f"--{name} {path} does not exist: check the path")
    folder.check()
    before = folder.remembered()
    first = {"student": student and str(student.absolute()), "tutor": tutor and str(tutor.absolute())}
    asked: dict[str, Any] = {name: value for name, value in {**first, "image_size": image_size}.items() if value}
    if before is not None and before.has_release:
        for name, value in asked.items():
            if value != getattr(before, name):
                raise WrongState(
                    f"the box in {folder.root} has begun with another --{name.replace('_', '-')}: leave it out, or "
                    "begin another box with --folder"
                )
    if before is None and not cameras:
        raise InvalidInput("name a camera with --camera, such as --camera rtsp://10.0.0.7/stream1 or /dev/video0")
    if cameras:
        asked["cameras"] = cameras_in(cameras)
    if credentials:
        asked["credentials"] = str(credentials.absolute())
    if port:
        asked["port"] = port
    if config:
        asked["tuning"] = read_config(config)
    kept = {} if before is None else {name: getattr(before, name) for name in BoxOptions.model_fields}
    return BoxOptions.of({**kept, **asked})


def _run(folder: BoxFolder, options: BoxOptions, as_json: bool) -> None:
    import asyncio

    from diredi.local_services import end_as_by_ctrl_c
    from diredi_box.box import Box
    from diredi_box.service_configs import check

    check(options, folder)
    end_as_by_ctrl_c()
    with folder.locked():
        _check_ports(options)
        if not as_json:
            note(_what_it_takes(folder, options))
        box = Box(options, folder, note)
        try:
            folder.remember(options)
            folder.make_identities()

            async def live() -> None:
                with progress(as_json) as bar:
                    links = await box.start(bar)
                folder.remember(options.model_copy(update={"has_release": True}))
                emit(asdict(links), as_json, *_shown(links))
                sys.stdout.flush()  # whoever reads a pipe waits for it, and the box goes on
                if not as_json:
                    note(_how_to_go_on(folder))
                await box.watch()

            asyncio.run(live())
        except KeyboardInterrupt:
            note(f"The box has stopped. Start it again with: diredi box --folder {shlex.quote(str(folder.root))}")
        finally:
            box.stop()


def _check_ports(options: BoxOptions) -> None:
    """Raises WrongState that names the port that another program has."""
    from diredi.web.server import listen
    from diredi_box.service_configs import HOST

    names = ("the site's pages", "the console", "the edge node's page")
    for port, what in zip((options.port, options.console_port, options.edge_port), names, strict=True):
        try:
            listen(HOST, port, what).close()
        except WrongState as error:
            raise WrongState(f"{error} with --port") from None


def _what_it_takes(folder: BoxFolder, options: BoxOptions) -> str:
    """Say what the box needs of this machine, beside what there is."""
    import shutil

    import psutil  # type: ignore[import-untyped]

    from diredi.cores import usable_cores

    there = next(path for path in (folder.root, *folder.root.absolute().parents) if path.exists())
    memory, disk = psutil.virtual_memory().available // 2**20, shutil.disk_usage(there).free // 2**20
    text = (
        f"A box in {folder.root} with {len(options.cameras)} camera{'s' * (len(options.cameras) != 1)}. It takes "
        f"about {_MIB_DETECTING} MiB of memory while it detects, more while it trains, and "
        f"{_MIB_DISK} MiB of disk; this machine has {memory} MiB of memory, {disk} MiB of disk and {usable_cores()} "
        "cores for it."
    )
    if not options.has_release:
        text += " The first release takes a few minutes."
    return text


def _shown(links: Links) -> list[Table]:
    return [
        facts(
            {
                "live pictures, labels, consent": links.site,
                "console": links.console,
                "the edge node's page": links.camera,
            }
        )
    ]


def _how_to_go_on(folder: BoxFolder) -> str:
    from diredi_box.options import SITE

    name = shlex.quote(str(folder.root))
    return (
        "The first two links work once, for two minutes. New ones:\n"
        f"  diredi box --folder {name} --open\n"
        "When there are new labels, let it learn from them:\n"
        f"  diredi cycle start --site {SITE} --cloud {folder.addresses()['cloud']}"
        f" --identity {shlex.quote(str(folder.identity('operator')))} --watch\n"
        "Ctrl-C stops the box."
    )


def _open(folder: BoxFolder, as_json: bool) -> None:
    import asyncio

    from diredi_box.box import links

    options = folder.remembered()
    if options is None:
        raise WrongState(f"no box has started in {folder.root} yet: start one with `diredi box --camera ...`")
    found = asyncio.run(links(folder, options))
    emit(asdict(found), as_json, *_shown(found))


def _stop(folder: BoxFolder, as_json: bool) -> None:
    stopped = folder.stop_box()
    emit({"stopped": stopped}, as_json, f"{'the box' if stopped else 'no box'} in {folder.root} was running")
