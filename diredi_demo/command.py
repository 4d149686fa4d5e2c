"""The command `diredi demo`, and what it prints."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diredi_cli.options import AsJson, LabelSource, Seed, image_size_option
from diredi_cli.output import emit, note, progress

if TYPE_CHECKING:
    from diredi_demo.workspace import Workspace

_OWN = "Your own data and models"

NEXT = (
    "Next: your own data with --presumed maker/data.yaml --private site/data.yaml, this fleet left running with "
    "--keep, or containers with `make up`."
)
"""The last line of a demo."""


def demo(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the report and the fleet's files go.")
    ] = Path("demo-out"),
    presumed: Annotated[
        Path | None,
        typer.Option("--presumed", metavar="DATA.YAML", help="What the manufacturer has.", rich_help_panel=_OWN),
    ] = None,
    private: Annotated[
        Path | None,
        typer.Option("--private", metavar="DATA.YAML", help="What the site has; never shown.", rich_help_panel=_OWN),
    ] = None,
    student: Annotated[
        str,
        typer.Option("--student", metavar="MODEL", help="Weights, or an architecture to train.", rich_help_panel=_OWN),
    ] = "",
    tutor: Annotated[
        str,
        typer.Option("--tutor", metavar="MODEL", help="Weights, or an architecture to train.", rich_help_panel=_OWN),
    ] = "",
    teacher: Annotated[
        str,
        typer.Option("--teacher", metavar="MODEL", help="Weights, or an architecture to train.", rich_help_panel=_OWN),
    ] = "",
    labels: Annotated[
        LabelSource,
        typer.Option(
            "--labels",
            help="Who says what is on the site's images: its labels, or an oracle, which needs none.",
        ),
    ] = LabelSource.SITE,
    image_size: Annotated[int | None, image_size_option(_OWN)] = None,
    seed: Seed = 0,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="YAML with changes: presumed_images, site_images, cloud, site, edge, recipe.",
        ),
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Train the first models, where the starter release would be used.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the fleet running at the end.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Only stop a fleet that --keep left running in DIR.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run one whole update cycle on this machine and report what it did.

    Starts one cloud, one user domain and three edge nodes as real processes with mutual TLS, lets the site teach the
    fleet a class that its maker never trained, and measures both releases. Leaves nothing running.
    """
    from diredi_demo.checks import check
    from diredi_demo.html_report import write_html_report
    from diredi_demo.options import DemoConfig, DemoOptions
    from diredi_demo.run import run_demo
    from diredi_demo.table import render_report
    from diredi_demo.workspace import Workspace

    folder = Workspace(out)
    if stop:
        _stop(folder, as_json)
        return
    setting = DemoOptions(
        out=out,
        presumed=presumed,
        private=private,
        teacher=teacher,
        tutor=tutor,
        student=student,
        seed=seed,
        image_size=image_size,
        from_scratch=from_scratch,
        labels=labels.value,
        keep=keep,
        tuning=DemoConfig.read(config) if config else DemoConfig(),
        command=_command_line(),
    )
    folder.check()
    check(setting, folder)
    folder.prepare()
    with progress(as_json) as bar:
        report = run_demo(setting, folder, bar)
        report.write(folder.report)
        write_html_report(report, folder.page)
    emit(report.model_dump(mode="json"), as_json, *render_report(report))
    if not as_json:
        note(f"Report for people: {folder.page}\nReport for programs: {folder.report}")
    if keep:
        note(_how_to_go_on(folder))
    if not as_json:
        note(NEXT)


def _command_line() -> str:
    return shlex.join(["diredi", *sys.argv[1:]])


def _stop(folder: Workspace, as_json: bool) -> None:
    stopped = folder.stop_running()
    words = f"stopped {', '.join(stopped)}" if stopped else f"nothing of the demo in {folder.out} was running"
    emit({"stopped": stopped}, as_json, words)


def _how_to_go_on(folder: Workspace) -> str:
    from diredi_demo.options import SITE

    return (
        f"The fleet still runs. Talk to it:\n"
        f"  export DIREDI_CLOUD={folder.addresses()['cloud']} DIREDI_IDENTITY={folder.identity('operator').resolve()}\n"
        f"  diredi device list\n"
        f"Look at the fleet's console and at the site's pages in a browser; each prints a link that works once:\n"
        f"  diredi console open\n"
        f"  diredi site open {folder.addresses()[SITE]} --identity {folder.identity(SITE).resolve()}\n"
        f"Stop it:\n  diredi demo --out {shlex.quote(str(folder.out))} --stop"
    )
