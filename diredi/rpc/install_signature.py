"""Signatures on reports of installations: made by the device, checked by the cloud, and later by whoever audits it."""

from __future__ import annotations

from diredi.rpc.v1.fleet_pb2 import ReportInstallRequest
from diredi.trust import signatures
from diredi.trust.identity import Credentials

_PURPOSE = ReportInstallRequest.DESCRIPTOR.full_name


def sign_report(report: ReportInstallRequest, credentials: Credentials) -> None:
    """Sign a report in place; nothing in it may change afterwards.

    Args:
        report: The report whose `signature` is set.
        credentials: Certificate and key of the device.
    """
    report.signature = signatures.sign(credentials, _PURPOSE, _canonical(report))


def check_report(report: ReportInstallRequest, certificate: bytes) -> None:
    """Check that the holder of a certificate signed a report.

    Args:
        report: The report with its signature.
        certificate: Certificate in PEM form.

    Raises:
        Refused: The signature is not by the key of the certificate.
    """
    signatures.check(certificate, _PURPOSE, _canonical(report), report.signature)


def _canonical(report: ReportInstallRequest) -> bytes:
    """The one form of what the report says, as the contract has it."""
    unsigned = ReportInstallRequest()
    unsigned.CopyFrom(report)
    unsigned.ClearField("signature")
    return unsigned.SerializeToString(deterministic=True)
