"""The application layer of enrolment: who may let somebody into the fleet, or out of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import structlog

from cloud_server import authorization
from diredi.errors import InvalidInput, WrongState
from diredi.trust import enrolment
from diredi.trust.deny_list import CRL_FILE, DenyList
from diredi.trust.enrolment import Token
from diredi.trust.identity import Credentials, Identity, Role

_log = structlog.get_logger()


class EnrolmentService:
    """Make tokens and retire identities with the authority that the cloud was given."""

    def __init__(self, authority: Path | None, identity: Path) -> None:
        """Create the service.

        Args:
            authority: The folder of the authority; None: nothing is signed.
            identity: The folder of the cloud's own credentials.
        """
        self._folder, self._identity = authority, identity

    @property
    def can_sign(self) -> bool:
        """Return whether there is an authority."""
        return self._folder is not None

    @property
    def authority(self) -> Path:
        """Return the folder of the authority.

        Raises:
            WrongState: There is none.
        """
        if self._folder is None:
            raise WrongState("this cloud has no authority to sign with: start it with --authority FOLDER")
        return self._folder

    async def create_token(self, actor: Identity, wanted: str, hosts: Sequence[str], valid: timedelta) -> Credentials:
        """Make the one-time credentials of a token.

        Args:
            actor: The caller.
            wanted: Who may enrol with it, such as "site/site-1".
            hosts: DNS names and addresses at which that one will answer.
            valid: For how long.

        Raises:
            Refused: The caller is not an admin.
            WrongState: The cloud has no authority.
            InvalidInput: The identity cannot enrol, `valid` is too long, or a host is none or is another identity's.
        """
        authorization.require_admin(actor)
        identity = Identity.from_uri(f"diredi://{wanted}")
        made = await asyncio.to_thread(enrolment.create_token, self.authority, identity, list(hosts), valid)
        name, ends = made.identity.name, made.expires.isoformat()
        _log.info("token_created", identity=str(identity), token=name, by=str(actor), ends=ends)
        return made

    def token_of(self, made: Credentials, cloud: str) -> Token:
        """Return the token of one-time credentials, for whom the cloud is at this host:port."""
        denied = DenyList.read(self._identity / CRL_FILE, made.ca)
        return Token(cloud, made, denied.generation_of(Role.CLOUD))

    async def retire(self, actor: Identity, wanted: str, confirmed: str | None = None) -> list[Identity]:
        """Revoke all that was signed for a device, a site with its devices, or a person, and return for whom.

        Args:
            actor: The caller.
            wanted: Who retires, such as "site/site-1".
            confirmed: The same once more where a person was asked to write it; None: nobody was asked.

        Raises:
            Refused: The caller is not an admin.
            WrongState: The cloud has no authority.
            InvalidInput: That cannot retire, or was not confirmed.
            NotFound: The authority has signed nothing for it.
        """
        authorization.require_admin(actor)
        identity = Identity.from_uri(f"diredi://{wanted}")
        if confirmed is not None and confirmed.strip() != str(identity):
            raise InvalidInput(f"write {identity} to say that you mean it: nobody was retired")
        retired = await asyncio.to_thread(enrolment.retire, self.authority, identity, actor)
        _log.info("identities_retired", identities=[str(one) for one in retired], by=str(actor))
        return retired
