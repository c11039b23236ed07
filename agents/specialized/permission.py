"""Decides which repositories a worker may open; never opens one.

`CALLBOARD_REPOSITORIES` lists, separated by commas, address prefixes (`https://git.example.org/shop`) and
absolute folders (`/srv/git`). A prefix allows what lies below it, segment by segment: `/srv/git` does not
allow `/srv/git-other`. Bundles that come with the task are always allowed; by default nothing else is.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from agents.core.errors import ConfigurationError, RepositoryError

SETTING = "CALLBOARD_REPOSITORIES"
BUNDLES = "bundles"
"""May stand in the setting, for readers: it allows nothing that is not allowed anyway."""

PROTOCOLS = frozenset({"git", "http", "https", "ssh"})
PLAIN = re.compile(r"[!-\[\]-~]+")  # printable ASCII without blanks and backslashes
FOLDER = re.compile(r"/[^\x00-\x1f\x7f]*")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a permitted repository is: a resolved folder, or an address with its protocol."""

    location: str
    protocol: str
    allowed: tuple[Path, ...] = ()

    @property
    def is_folder(self) -> bool:
        """Whether it is on this machine."""
        return self.protocol == "file"


def permitted(url: str, setting: str) -> Source:
    """Find out where a repository is, if this worker may open it.

    Args:
        url: What the task says.
        setting: The value of `CALLBOARD_REPOSITORIES`.

    Raises:
        RepositoryError: If it may not, or `url` is no address of a repository.
        ConfigurationError: If the setting cannot be understood.
    """
    folders, prefixes = _entries(setting)
    if FOLDER.fullmatch(url):
        # Resolved before it is compared, and opened as resolved: `..` and links cannot lead out.
        folder = Path(url).resolve()
        if any(folder.is_relative_to(allowed) for allowed in folders):
            return Source(str(folder), "file", folders)
    else:
        address = _address(url)
        if any(_below(address, prefix) for prefix in prefixes):
            return Source(url, address.scheme)
    raise RepositoryError(
        f"this worker may not open the repository {url!r}: {SETTING} allows"
        f" {setting.strip() or 'only bundles that came with the task'}; add its address or folder there, or"
        " attach the commit with `callboard publish --repository PATH`"
    )


def _entries(setting: str) -> tuple[tuple[Path, ...], tuple[SplitResult, ...]]:
    folders: list[Path] = []
    prefixes: list[SplitResult] = []
    for entry in filter(None, (part.strip() for part in setting.split(","))):
        if entry == BUNDLES:
            continue
        if FOLDER.fullmatch(entry):
            folders.append(Path(entry).resolve())
            continue
        try:
            prefixes.append(_address(entry))
        except RepositoryError as error:
            raise ConfigurationError(
                f"{SETTING} has an entry that is neither an absolute folder nor an address: {error}"
            ) from None
    return tuple(folders), tuple(prefixes)


def _address(url: str) -> SplitResult:
    """Take an address apart, if it is one that means the same to everyone.

    Raises:
        RepositoryError: If it is an option, a command, a local protocol, or written to be misread.
    """
    refused = f"{url!r} is no address of a repository that can be opened: "
    try:
        parts = urlsplit(url) if PLAIN.fullmatch(url) else urlsplit("")
        segments = [unquote(segment) for segment in parts.path.split("/")]
        bad_host = not parts.hostname or parts.hostname.startswith("-") or parts.port == 0
    except ValueError as error:
        raise RepositoryError(f"{refused}{error}") from None
    if parts.scheme == "file":
        raise RepositoryError(f"{refused}give a folder as an absolute path, not as file://")
    if (
        parts.scheme not in PROTOCOLS
        or "::" in url.split("/", 1)[0]
        or not url.startswith(parts.scheme + "://")
    ):
        raise RepositoryError(
            f"{refused}it must be an absolute folder or start with one of"
            f" {', '.join(f'{name}://' for name in sorted(PROTOCOLS))}"
        )
    if bad_host or parts.password is not None or (parts.username or "").startswith("-"):
        raise RepositoryError(f"{refused}it needs a host, and no password: events are kept")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise RepositoryError(f"{refused}it has a query or a fragment")
    if any(segment in {".", ".."} or "/" in segment or "\\" in segment for segment in segments):
        raise RepositoryError(f"{refused}its path has segments that lead elsewhere")
    return parts


def _below(address: SplitResult, prefix: SplitResult) -> bool:
    same = (address.scheme, address.netloc.lower()) == (prefix.scheme, prefix.netloc.lower())
    return same and f"{address.path}/".startswith(f"{prefix.path.rstrip('/')}/")
