"""What a deployment can choose, read from `CALLBOARD_*` environment variables."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import NoDecode

from agents.core.errors import ConfigurationError
from streams.connection_settings import ConnectionSettings
from streams.home import default_home


class Settings(ConnectionSettings):
    """Every setting of workers and of the command line."""

    home: Path = Field(default_factory=default_home, description="what the local Kafka keeps on disk")
    topic_prefix: str = Field(
        default="", pattern="^[a-z0-9._-]{0,64}$", description="before every topic name"
    )
    partitions: int = Field(default=6, ge=1, le=10_000, description="of topics that have to be created")
    replication: int = Field(default=1, ge=1, le=32_767, description="of topics that have to be created")
    new_edge: Literal["beginning", "latest"] = Field(
        default="beginning", description="where a new follower starts in results that are already there"
    )
    drain_seconds: float = Field(default=20.0, ge=0, le=3600, description="what runs get to end at shutdown")
    session_timeout_ms: int = Field(
        default=10_000, ge=1_000, description="after which a dead worker is replaced"
    )
    instance_id: str | None = Field(
        default=None,
        pattern="^[a-zA-Z0-9._-]{1,200}$",
        description="what keeps a restarted worker's partitions for it; no two processes may have the same",
    )
    block_limit_seconds: float = Field(
        default=60.0, gt=0, le=86_400, description="a blocked event loop ends its process after that"
    )
    only: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="agents of the application to run, separated by commas; default: all"
    )

    @field_validator("only", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(name.strip() for name in value.split(",") if name.strip())

    @property
    def block_limit(self) -> float:
        """Seconds an event loop may stand still: until its session ends, nobody else takes over anyway."""
        return max(self.block_limit_seconds, self.session_timeout_ms / 1000)

    @classmethod
    def from_environment(cls) -> Self:
        """Read the settings.

        Raises:
            ConfigurationError: If an environment variable does not hold what it should; names the variable,
                and what it holds unless that is a secret.
        """
        try:
            return cls()
        except ValidationError as error:
            problems = [
                f"CALLBOARD_{name.upper()}{_shown(cls, name, problem['input'])}: {problem['msg']}"
                for problem in error.errors(include_url=False)
                for name in [str(problem["loc"][0])]
            ]
        # Not inside of `except`: what pydantic says holds the values, secrets too.
        raise ConfigurationError(f"wrong setting: {'; '.join(problems)}")


def _shown(settings: type[Settings], name: str, value: object) -> str:
    return "" if "SecretStr" in str(settings.model_fields[name].annotation) else f"={value!r}"
