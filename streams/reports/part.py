"""What all parts of all reports have in common; schemas are made of them."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of a report: it never changes, and has no fields that nobody described."""

    model_config = ConfigDict(frozen=True, extra="forbid")
