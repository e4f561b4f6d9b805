"""What to prepare, as flags and TOML give it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from binwatch.settings import Settings
from trainer.prepare import lists
from trainer.prepare.place import Place, open_place
from trainer.prepare.run import Options


class PrepareConfig(BaseModel):
    """The table [prepare]; the flags of `prepare` have the same names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = "s3://aft-vbi-pds"
    endpoint: str | None = None
    unsigned: bool = False
    list: Path | None = None
    per_class: int = Field(0, ge=0)
    all: bool = False
    balance: bool = False
    scan: int = Field(50_000, ge=1)
    size: int = Field(0, ge=0, le=2048)
    audits: Path | None = None
    challenge_val: Path | None = None
    jobs: int = Field(16, ge=1, le=48)

    @model_validator(mode="after")
    def _one_selection(self) -> PrepareConfig:
        if [self.list is not None, self.per_class > 0, self.all].count(True) != 1:
            raise ValueError("choose one of list, per_class and all")
        if self.balance and self.list is None:
            raise ValueError("balance adds to a list; per_class is balanced already, and all has no more")
        return self

    def open(self, settings: Settings) -> tuple[Place, Options]:
        """Place and options; reads the lists. Raises ConfigError or DataError."""
        options = Options(
            keys=tuple(lists.read_keys(self.list)) if self.list else None,
            per_class=self.per_class,
            balance=self.balance,
            scan=self.scan,
            size=self.size,
            jobs=self.jobs,
            audits=lists.read_audits(self.audits) if self.audits else {},
            challenge=lists.read_challenge(self.challenge_val) if self.challenge_val else None,
            limits=settings.limits,
        )
        return open_place(self.source, settings, self.endpoint, anonymous=self.unsigned), options
