"""What the messages that leave a site say, in a few words, for reports and pages."""

from __future__ import annotations

from typing import Final

_TEXTS: Final = {
    "PutChunkRequest": "the gap, in chunks",
    "SubmitGapRequest": "its manifest",
    "ReportProgressRequest": "progress",
    "SubmitValidationRequest": "metrics of the release",
    "ProposeClassesRequest": "names of classes",
    "FailTaskRequest": "what went wrong",
    "StatBlobRequest": "how far the upload is",
    "GetBlobRequest": "asking for models",
    "EnrolRequest": "asking for a certificate",
    "RenewCertificateRequest": "asking for a newer certificate",
    "GetTrustRequest": "asking whom not to believe",
    "WatchTasksRequest": "asking for tasks",
    "ApproveCycleRequest": "that the site agrees",
    "DeclineCycleRequest": "that the site does not agree, and why",
    "ListModelsRequest": "asking which models there are",
    "WatchReleasesRequest": "asking for releases",
    "GetReleaseMetadataRequest": "asking for proofs of releases",
    "RegisterDeviceRequest": "devices say hello",
    "HeartbeatRequest": "devices are alive",
    "ReportInstallRequest": "devices have installed",
}


def egress_name(message_type: str) -> str:
    """Return what a type of message says; a type that this version does not know keeps its own name.

    Args:
        message_type: Its name without the package, such as "PutChunkRequest".
    """
    return _TEXTS.get(message_type, message_type)
