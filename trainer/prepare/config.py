"""The options of `prepare`: the table [prepare] of a pipeline's file, and the command's flags of the same names."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from trainer.config import Section


class PrepareConfig(Section):
    """Which bins to fetch, and how their photos are stored."""

    source: str = Field(
        "s3://aft-vbi-pds", description="s3://BUCKET/PREFIX or a folder, with bin-images/ and metadata/."
    )
    endpoint: str | None = Field(None, description="S3 endpoint; default: AWS, or BINWATCH_S3_ENDPOINT_URL.")
    unsigned: bool = Field(False, description="Send requests without credentials, as for the public bucket.")
    list: Path | None = Field(None, description="JSON of classes (file_list.json) or text with a key per line.")
    per_class: int = Field(0, ge=0, description="Photos of each of the seven classes.")
    all: bool = Field(False, description="Every photo.")
    balance: bool = Field(
        False, description="With --list: add photos of rare classes, up to the most common class's number."
    )
    scan: int = Field(50_000, ge=1, description="Largest number of metadata files to search for classes.")
    size: int = Field(0, ge=0, le=2048, description="Side in pixels to which photos are squashed; 0: unchanged.")
    audits: Path | None = Field(
        None, description="CSV with bin and quantity: audits replace the inventory's quantities."
    )
    sighted_audits: bool = Field(False, description="Also audits by people who had the numbers in sight.")
    challenge_val: Path | None = Field(
        None, description="The ABID challenge's random_val.txt: its photos become the test photos."
    )
    jobs: int = Field(16, ge=1, le=48, description="Number of photos fetched concurrently.")

    @model_validator(mode="after")
    def _one_selection(self) -> PrepareConfig:
        if [self.list is not None, self.per_class > 0, self.all].count(True) != 1:
            raise ValueError("choose one of list, per_class and all")
        if self.balance and self.list is None:
            raise ValueError("balance needs list; with per_class or all there is nothing to add")
        return self
