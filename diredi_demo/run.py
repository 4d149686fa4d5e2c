"""A whole demo, from its options to its report; at the end no process of it is left."""

from __future__ import annotations

import asyncio
import signal

from diredi_cli.output import Progress
from diredi_demo.data import provide_data
from diredi_demo.measure import measure
from diredi_demo.options import DemoOptions
from diredi_demo.processes import Fleet
from diredi_demo.report import Report
from diredi_demo.scenario import Scenario
from diredi_demo.timing import Clock
from diredi_demo.workspace import Workspace


def run_demo(setting: DemoOptions, folder: Workspace, bar: Progress) -> Report:
    """Raises the DirediError of whatever went wrong, KeyboardInterrupt for Ctrl-C, SIGTERM and SIGHUP alike.

    No process is left, unless all went well and they are to stay.
    """
    _end_as_by_ctrl_c()
    clock, fleet = Clock(), Fleet(folder, outlive=setting.keep)
    ended_well = False
    try:
        with clock.span("data", "set-up"):
            data = provide_data(setting, folder, bar)
            folder.make_authority()
        outcome = asyncio.run(Scenario(setting, folder, data, fleet, clock, bar).run())
        if not setting.keep:
            bar.step("Stopping the fleet")
            fleet.stop()  # before measuring: its frames would compete for the processor
        report = measure(setting, folder, outcome, clock, bar)
        ended_well = True
        return report
    finally:
        if not (ended_well and setting.keep):
            fleet.stop()


def _end_as_by_ctrl_c() -> None:
    """So that whoever ends the demo, it unwinds and stops its fleet; but `nohup` is heeded.

    A script's background jobs start with SIGINT ignored, and then SIGTERM, which is turned into it, would be as well.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: signal.raise_signal(signal.SIGINT))
