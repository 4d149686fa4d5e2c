"""A whole demo, from its options to its report; at the end no process of it is left."""

from __future__ import annotations

import asyncio

from diredi.local_services import LocalServices, end_as_by_ctrl_c
from diredi_cli.output import Progress, note
from diredi_demo.data import provide_data
from diredi_demo.measure import measure
from diredi_demo.options import DemoOptions
from diredi_demo.report import Report
from diredi_demo.scenario import Scenario
from diredi_demo.timing import Clock
from diredi_demo.workspace import Workspace


def run_demo(setting: DemoOptions, folder: Workspace, bar: Progress) -> Report:
    """Raises the DirediError of whatever went wrong, KeyboardInterrupt for Ctrl-C, SIGTERM and SIGHUP alike.

    No process is left, unless all went well and they are to stay.
    """
    end_as_by_ctrl_c()
    clock, fleet = Clock(), LocalServices(folder, note, outlive=setting.keep)
    ended_well = False
    try:
        with clock.span("data", "set-up"):
            data = provide_data(setting, folder, bar)
            folder.make_authority("DiReDi demo")
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
