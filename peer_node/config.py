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
    """Every field as a flag, as DIREDI_PEER_<FIELD> in the environment, or in the YAML file named by `--config`."""

    model_config = SettingsConfigDict(env_prefix="DIREDI_PEER_")
    program: ClassVar[str] = "peer_node"

    name: Name
    """Name of this device; its certificate must say the same."""
    site: Name
    """The site that it stands at."""
    identity: Path
    """Folder with ca.pem, cert.pem and key.pem."""
    listen: str = "127.0.0.1:0"
    """host:port of PeerService; port 0 takes a free one."""
    neighbours: dict[str, str]
    """NAME of a device of this site, or SITE/NAME of another's, to its host:port. Nobody else is asked or answered."""
    asks: tuple[tuple[str, ...], ...] = ()
    """Which of the neighbours are asked in round 1, 2 and so on, where the topology changes, and ask this peer in turn;
    empty: always all."""
    rounds: int = Field(ge=1)
    deadline_s: float = Field(60.0, gt=0)
    """How long a round waits for its neighbours (a hub half as long, for they wait for it), and after the last
    one for those that have not heard this peer yet."""
    start_s: float = Field(60.0, ge=0)
    """How long the first round waits for neighbours that are not up yet."""
    attempts: int = Field(3, ge=1)
    """How often a neighbour is asked in a round, while connections to it break."""
    keep_rounds: int = Field(4, ge=1)
    """For how many rounds a peer that is behind can still ask."""
    summary: Path
    """JSON file of all rounds, written after each."""
    learner: str
    """What makes the learner: "package.module:function"."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The learner's own."""
    data: dict[str, Any] = Field(default_factory=dict)
    """The learner's own, too: what it learns from."""
    peer: int = Field(0, ge=0)
    """Which of the peers this is, from 0: whose part of the data it has."""
    peers: int = Field(1, ge=1)
    seed: int = Field(0, ge=0)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

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
        return Identity(Role.DEVICE, self.name, self.site)

    def identity_of(self, neighbour: str) -> Identity:
        """Raises InvalidInput when it cannot be a name."""
        site, _, name = neighbour.rpartition("/")
        return Identity(Role.DEVICE, name, site or self.site)

    def asked_in(self, round_: int) -> list[str]:
        """The neighbours of a round, from 1."""
        return list(self.asks[round_ - 1] if self.asks else self.neighbours)
