"""`diredi backup`, `diredi restore` and `diredi integrity`: what a cloud has on its disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diredi.text import bytes_text
from diredi_cli.output import emit, facts, progress, table, time_text

if TYPE_CHECKING:
    from cloud_server.backup import Manifest
    from cloud_server.config import CloudConfig

# What is not named here belongs to the cloud: its flags, its variables, its file.
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")]

integrity = typer.Typer(help="Whether what a cloud has on its disk fits together.", no_args_is_help=True)


def backup(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write; it must not be there yet.")],
    as_json: AsJson = False,
) -> None:
    """Back up a cloud into one file while it runs: database, files and signed metadata that fit together, verified.

    It takes the flags of `diredi serve cloud` and runs on the cloud's machine. Keys are not in the backup: keep a copy
    of the identity folder and of the authority's. Exit code 3 if files were damaged and are not in the backup.
    """
    from cloud_server import backup as cloud_backup
    from diredi.errors import CorruptData

    config = _config(context)
    with progress(as_json) as bar:
        bar.step(f"Backing up to {out.name}")
        manifest = cloud_backup.create(config, out)
    emit(manifest.model_dump(mode="json"), as_json, facts({"backup": out, **_shown(manifest)}))
    if manifest.damaged:
        first = manifest.damaged[0]
        raise CorruptData(
            f"{len(manifest.damaged)} files of the cloud are damaged or missing and not in the backup, such as "
            f"{first.digest} ({', '.join(first.needed_by)}): see `diredi integrity check`, and back up again"
        )


def restore(
    context: typer.Context,
    source: Annotated[Path, typer.Option("--from", metavar="FILE", help="The backup.")],
    last_release: Annotated[
        int,
        typer.Option(
            "--last-release",
            min=0,
            metavar="N",
            help="The newest release that devices run, where it is newer than the backup and no ledger.json says so.",
        ),
    ] = 0,
    only_check: Annotated[bool, typer.Option("--check", help="Only verify the backup and say what is in it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring a cloud back from a backup. It overwrites nothing: where a database is, it refuses.

    It takes the flags of `diredi serve cloud`, whose database may be of another kind than the one that was backed up.
    The cloud must not run. Files that are there and good stay.
    """
    from cloud_server import backup as cloud_backup

    if only_check:
        manifest = cloud_backup.check(source)
        emit(manifest.model_dump(mode="json"), as_json, facts({"backup": source, **_shown(manifest)}))
        return
    config = _config(context)
    with progress(as_json) as bar:
        bar.step(f"Restoring {source.name}")
        restored = cloud_backup.restore(config, source, last_release)
    shown = {
        "restored to": config.state_dir,
        **_shown(restored.manifest),
        "lost": restored.lost or "nothing that is known",
    }
    if restored.lost:
        shown["to do"] = (
            "restore a newer backup, or start the cloud once with --accept-lost-past: numbers go on after it"
        )
    data = restored.manifest.model_dump(mode="json") | {"lost": restored.lost}
    emit(data, as_json, facts(shown))


@integrity.command("check", context_settings=PASS_ON)
def check(context: typer.Context, as_json: AsJson = False) -> None:
    """Compare a cloud's files with its database and its signed metadata, also while it runs.

    It takes the flags of `diredi serve cloud` and runs on the cloud's machine. Exit code 3 if something does not fit.
    """
    from cloud_server import integrity as cloud_integrity

    config = _config(context)
    with progress(as_json) as bar:
        bar.step("Reading all files")
        report = cloud_integrity.check(config)
    counts = {
        "files": f"{report.files}, {bytes_text(report.bytes)}",
        "published releases": report.releases,
        "findings": len(report.findings) or "none",
    }
    rows = [(finding.what, finding.found, finding.remedy) for finding in report.findings]
    tables = [table(("what", "found", "to do"), rows)] if rows else []
    emit(report.model_dump(mode="json"), as_json, facts(counts), *tables)
    if report.findings:
        raise typer.Exit(3)


def _config(context: typer.Context) -> CloudConfig:
    from cloud_server.config import CloudConfig

    return CloudConfig.from_command_line(context.args)


def _shown(manifest: Manifest) -> dict[str, object]:
    return {
        "made": f"{time_text(manifest.made)} by version {manifest.version}",
        "newest release": manifest.release or "none",
        "files": f"{len(manifest.blobs)}, {bytes_text(sum(member.bytes for member in manifest.members))}",
        "left out": len(manifest.damaged) or "none",
    }
