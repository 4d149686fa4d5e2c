"""The root of the `diredi` command: groups, exit codes, and how an error is told."""

from __future__ import annotations

import errno
import gc
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NoReturn

import typer
from typer import TyperException

from diredi import __version__
from diredi.errors import DirediError, NoRoom, NotFound
from diredi.streams import make_printable
from diredi_box.command import box
from diredi_cli import (
    audit,
    backup,
    camera,
    console,
    cycle,
    data,
    device,
    doctor,
    evaluate,
    gap,
    group,
    model,
    operator,
    peers,
    pki,
    release,
    rollout,
    serve,
    site,
    train,
)
from diredi_demo.command import demo

EXIT_CODES = (
    "Exit codes: 0 done; 1 failed for a reason that is not yours; 2 wrong input; 3 corrupt data; 4 not found; "
    "5 refused; 6 right, but not now; 7 no room; 8 the other side is away, so try again; 130 interrupted."
)

app = typer.Typer(
    name="diredi",
    help="Updates the detectors of a fleet of cameras from what each site sees, while no image leaves the site.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


_INTERRUPTED = 130
_FILE_EXIT_CODES = {errno.ENOENT: NotFound.exit_code, errno.ENOSPC: NoRoom.exit_code}


@dataclass
class _Invocation:
    debug: bool = False


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"diredi {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="DIREDI_DEBUG", help="Show the traceback of an error.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    context.obj.debug = debug


app.command("demo")(demo)
app.command("box")(box)
app.add_typer(serve.app, name="serve")
app.add_typer(cycle.app, name="cycle")
app.add_typer(model.app, name="model")
app.add_typer(site.app, name="site")
app.add_typer(group.app, name="group")
app.add_typer(device.app, name="device")
app.add_typer(operator.app, name="operator")
app.add_typer(console.app, name="console")
app.add_typer(camera.app, name="camera")
app.add_typer(train.app, name="train")
app.add_typer(peers.app, name="peers")
app.command("eval")(evaluate.evaluate_model)
app.add_typer(data.app, name="data")
app.add_typer(gap.app, name="gap")
app.add_typer(pki.app, name="pki")
app.add_typer(release.app, name="release")
app.add_typer(rollout.app, name="rollout")
app.add_typer(doctor.app, name="doctor")
app.command("backup", context_settings=backup.PASS_ON)(backup.backup)
app.command("restore", context_settings=backup.PASS_ON)(backup.restore)
app.add_typer(backup.integrity, name="integrity")
app.add_typer(audit.app, name="audit")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; what goes wrong is printed as one sentence.

    Args:
        arguments: The command line; None takes that of this process.

    Returns:
        The exit code.
    """
    invocation = _Invocation()
    try:
        result = app(args=arguments, prog_name="diredi", standalone_mode=False, obj=invocation)
    except DirediError as error:
        return _failed(str(error), error.exit_code, invocation)
    except TyperException as error:
        return _misused(error, invocation)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read us has gone; there is nobody to tell
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return _failed("interrupted", _INTERRUPTED, invocation)
    except ModuleNotFoundError as error:
        return _failed(_about_package(error), 1, invocation)
    except OSError as error:
        return _failed(_about_file(error), _FILE_EXIT_CODES.get(error.errno or 0, 1), invocation)
    except Exception as error:  # the last resort: a person must never see a bare traceback
        what = f"unexpected {type(error).__name__}: {error}"
        return _failed(f"{what}: this is a defect; run again with `diredi --debug` and report it", 1, invocation)
    if result == _INTERRUPTED:  # typer has swallowed the exception
        return _failed("interrupted", _INTERRUPTED, invocation)
    return result if isinstance(result, int) else 0


def _about_package(error: ModuleNotFoundError) -> str:
    """Edge nodes have the core alone, without what learns."""
    groups = "learning,peers,cloud"
    return f"this command needs the package {error.name}, which is not installed: install 'diredi[{groups}]'"


def _about_file(error: OSError) -> str:
    name = f"{error.filename}: " if error.filename else ""
    return f"{name}{error.strerror or error}: check the path, the permissions and the room on the disk"


def _misused(error: TyperException, invocation: _Invocation) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        return error.exit_code  # the help has been printed already
    message = error.format_message().rstrip(".").replace("\n", " ").replace("\t", "")
    hint = "" if context is None else f": see `{context.command_path} --help`"
    return _failed(message + hint, error.exit_code, invocation)


def _failed(message: str, code: int, invocation: _Invocation) -> int:
    from rich.text import Text

    from diredi.text import printable
    from diredi_cli.output import stderr

    if invocation.debug:
        traceback.print_exc()
    stderr().print(Text.assemble(("error: ", "bold red"), printable(message, keep="\n")), soft_wrap=True)
    return code


def main() -> NoReturn:
    """Run the command line of this process and exit with its code."""
    make_printable()
    code = run()
    gc.freeze()  # the last search for garbage would take a third of most commands' time
    sys.exit(code)


if __name__ == "__main__":
    main()
