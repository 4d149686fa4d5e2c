"""The configuration of a peer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic_settings import SettingsConfigDict

from diredi.config import ServiceConfig
from diredi.trust.identity import Identity, Role

Name = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class PeerConfig(ServiceConfig):
    """Configure a peer by flags, DIREDI_PEER_<FIELD> in the environment, or the YAML file that `--config` names."""

    model_config = SettingsConfigDict(env_prefix="DIREDI_PEER_")
    program: ClassVar[str] = "python -m peer_node"

    name: Name
    """The name of this device. Its certificate must have the same name."""
    site: Name
    """The site that this device belongs to."""
    identity: Path
    """The folder with ca.pem, cert.pem and key.pem, as `diredi pki issue` makes it."""
    listen: str = "127.0.0.1:0"
    """The host:port of PeerService. With port 0 the system chooses a free port."""
    neighbours: dict[str, str]
    """The host:port of each neighbour by its name: NAME for a device of this site, SITE/NAME for one of another site.
    Nobody else is asked or answered."""
    asks: tuple[tuple[str, ...], ...] = ()
    """Which neighbours are asked in round 1, in round 2 and so on, where the topology changes. They ask this peer in
    the same rounds. Empty asks all of them in every round."""
    rounds: int = Field(ge=1)
    """How many rounds this peer learns."""
    deadline_s: float = Field(60.0, gt=0)
    """How long a round waits for the neighbours, in seconds; a hub waits half as long, because the others wait for it.
    After the last round, the same time is left to those that have not heard this peer yet."""
    start_s: float = Field(60.0, ge=0)
    """How long the first round waits for neighbours that have not started yet, in seconds."""
    attempts: int = Field(3, ge=1)
    """How often a neighbour is asked in one round while the connection to it breaks."""
    keep_rounds: int = Field(4, ge=1)
    """For how many past rounds a peer that is behind can still ask."""
    summary: Path
    """The JSON file with the results of all rounds. It is written after each round."""
    model: Path | None = None
    """The safetensors file that the learner writes its model into after each round. With None no model is kept."""
    learner: str
    """The function that makes the learner, as `package.module:function`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The options of the learner."""
    data: dict[str, Any] = Field(default_factory=dict)
    """What the learner learns from. The learner defines these options, too."""
    peer: int = Field(0, ge=0)
    """The number of this peer, counted from 0. It decides which part of the data this peer has."""
    peers: int = Field(1, ge=1)
    """How many peers there are in all."""
    seed: int = Field(0, ge=0)
    """The seed of everything that the learner draws."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Events below this level are not logged."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if strangers := {name for names in self.asks for name in names} - self.neighbours.keys():
            raise ValueError(f"asks names {', '.join(sorted(strangers))}: name them in neighbours, too")
        if self.asks and len(self.asks) != self.rounds:
            raise ValueError(f"asks is of {len(self.asks)} rounds: name the neighbours of each of {self.rounds}")
        if self.own in (self.identity_of(name) for name in self.neighbours):
            raise ValueError(f"{self.own} cannot be its own neighbour")
        if self.peer >= self.peers:
            raise ValueError(f"peer {self.peer} is not one of {self.peers}: they are numbered from 0")
        return self

    @property
    def own(self) -> Identity:
        """The identity of this peer."""
        return Identity(Role.DEVICE, self.name, self.site)

    def identity_of(self, neighbour: str) -> Identity:
        """Return the identity of a neighbour by its name. Raises InvalidInput when it cannot be a name."""
        site, _, name = neighbour.rpartition("/")
        return Identity(Role.DEVICE, name, site or self.site)

    def asked_in(self, round_: int) -> list[str]:
        """Return the names of the neighbours that are asked in a round, counted from 1."""
        return list(self.asks[round_ - 1] if self.asks else self.neighbours)
