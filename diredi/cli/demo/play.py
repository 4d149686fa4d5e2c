"""From the setting to the report, with a fleet that is gone at the end however it ends."""

from __future__ import annotations

import asyncio
import signal

from diredi.cli.demo.clock import Clock
from diredi.cli.demo.fleet import Fleet
from diredi.cli.demo.folder import Folder
from diredi.cli.demo.measure import measure
from diredi.cli.demo.report import Report
from diredi.cli.demo.setting import Setting
from diredi.cli.demo.story import Story
from diredi.cli.output import Progress


def play(setting: Setting, folder: Folder, bar: Progress) -> Report:
    """Raises the DirediError of whatever went wrong, KeyboardInterrupt for Ctrl-C, SIGTERM and SIGHUP alike."""
    try:
        return asyncio.run(_played(setting, folder, bar))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _played(setting: Setting, folder: Folder, bar: Progress) -> Report:
    """Runs the story and measures. Whatever happens, no process is left, unless all went well and they are to stay."""
    _end_on_signals()
    clock, fleet = Clock(), Fleet(folder, outlive=setting.keep)
    ended_well = False
    try:
        outcome = await Story(setting, folder, fleet, clock, bar).run()
        _stop_fleet(fleet, setting, bar)
        report = await asyncio.to_thread(measure, setting, folder, outcome, clock, bar)
        ended_well = True
        return report
    finally:
        if not (ended_well and setting.keep):
            fleet.stop()


def _stop_fleet(fleet: Fleet, setting: Setting, bar: Progress) -> None:
    """Before measuring, so that frames do not compete with it for the processor."""
    if not setting.keep:
        bar.step("Stopping the fleet")
        fleet.stop()


def _end_on_signals() -> None:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does: by unwinding, so that the fleet is stopped."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
