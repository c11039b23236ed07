"""Brings a task's repository into a scratch folder of its own, and packs one up for a task.

Nothing here depends on a shared disk: the commit comes as a bundle with the task, or from an address that
`permission` allows. A repository is somebody else's data: its links are checked out as plain files (unless
its own tests are to run), submodules are not fetched, hooks and filters never run, sizes are bounded.
"""

import asyncio
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from agents.core.errors import ArtifactError, RepositoryError
from agents.core.task import RepositoryReference, Task
from agents.specialized.git import checked, git
from agents.specialized.permission import SETTING, Source, permitted
from agents.subprocesses import Finished

MIB = 1024 * 1024
BUNDLE_LIMIT = 64 * MIB
"""Most bytes of a bundle, and of what is fetched from an address."""
TREE_LIMIT = 512 * MIB
"""Most bytes of all files of one commit."""
FILES_LIMIT = 20_000
"""Most files of one commit."""

REPOSITORY = "repository"
PATCH = "patch"
FETCH_SECONDS = 120.0
ADDRESS_VARIABLES = (
    *("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"),
    *("SSL_CERT_DIR", "SSL_CERT_FILE", "GIT_SSL_CAINFO", "SSH_AUTH_SOCK"),
)
LEFT_BEHIND = shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.pyc", ".*_cache")
BUNDLE_HEADS = (b"# v2 git bundle\n", b"# v3 git bundle\n")
TREE_ENTRY = re.compile(rb"(\d{6}) (\w+) [0-9a-f]+ +(\d+|-)\t(.+)", re.DOTALL)
REGULAR, LINK, SUBMODULE = (b"100644", b"100755"), b"120000", b"160000"
SHA256_DIGITS = 64


@dataclass(frozen=True, slots=True)
class TrackedFile:
    """One regular file of the commit; size in bytes."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Checkout:
    """One commit in a scratch folder, with or without a patch on top.

    Attributes:
        scratch: The scratch folder; the tree is one of its folders, the rest of it is free to use.
        root: The tree.
        commit: What was checked out.
        name: For people.
        files: Its regular files, with the patch if there is one.
        links: Paths that are symbolic links.
        submodules: Paths that would be other repositories.
        unreadable_names: How many paths are not UTF-8 and are left out everywhere.
    """

    scratch: Path
    root: Path
    commit: str
    name: str
    settings: Mapping[str, str]
    files: tuple[TrackedFile, ...] = ()
    links: tuple[str, ...] = ()
    submodules: tuple[str, ...] = ()
    unreadable_names: int = 0
    patch: bytes = field(default=b"", repr=False)

    async def git(self, *arguments: str | Path, given: bytes = b"") -> Finished:
        """Run one git command in the tree, whatever it ends with."""
        finished = await git(*arguments, folder=self.root, given=given, settings=self.settings)
        # The scratch folder's name says nothing to anyone, and would make two runs' messages differ.
        return replace(finished, errors=finished.errors.replace(os.fsencode(self.scratch) + b"/", b""))

    async def apply(self, patch: bytes, *options: str) -> Finished:
        """Apply a patch to the tree and its index; all of it or nothing."""
        return await self.git("apply", "--index", "--whitespace=nowarn", *options, "-", given=patch)

    async def difference(self, *options: str) -> bytes:
        """Give all changes since the commit as a patch that `git apply` takes.

        Raises:
            RepositoryError: If git cannot tell.
        """
        checked(await self.git("add", "--all"), f"the changes to {self.name} cannot be collected")
        fixed = ("--cached", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--full-index")
        told = await self.git("diff", *fixed, *options, self.commit, "--")
        return checked(told, f"the changes to {self.name} cannot be told")

    def python_files(self, limit: int = MIB) -> tuple[str, ...]:
        """Give the paths of Python files, except for those with more bytes than `limit`."""
        return tuple(file.path for file in self.files if file.path.endswith(".py") and file.size <= limit)

    def read(self, path: str) -> bytes:
        """Give the content of one of `files`."""
        return (self.root / path).read_bytes()


@asynccontextmanager
async def checked_out(task: Task, *, patched: bool = True, links: bool = False) -> AsyncIterator[Checkout]:
    """Check out the repository a task is about, for as long as the context lasts.

    Args:
        task: Names the repository, and carries bundle and patch.
        patched: Whether to apply the artifact `patch`, if there is one.
        links: Whether symbolic links become links; only for what runs the repository's own code anyway.

    Raises:
        RepositoryError: If it cannot be opened, or may not be; says why, and which.
        ArtifactError: If the patch does not apply to the commit.
    """
    reference = task.root.repository
    if reference is None:
        raise RepositoryError(
            "the task names no repository: publish it with `callboard publish --repository PATH`, or with the"
            " address and commit of one"
        )
    patch = await task.artifact(PATCH) if patched and PATCH in task.artifacts else b""
    folder = await asyncio.to_thread(_scratch_folder)
    try:
        name = _display_name(reference)
        settings = {"core.symlinks": "true"} if links else {}
        scratch = Path(folder.name)
        checkout = Checkout(scratch, scratch / "tree", reference.commit, name, settings, patch=patch)
        await _start(checkout)
        if reference.url is None:
            await _take_bundle(checkout, await task.artifact(REPOSITORY))
        else:
            await _take_address(checkout, permitted(reference.url, os.environ.get(SETTING, "")))
        yield await _fill(checkout)
    finally:
        await asyncio.shield(asyncio.to_thread(folder.cleanup))


async def bundle(path: Path, commit: str | None = None) -> tuple[RepositoryReference, bytes]:
    """Pack up one commit of a repository, for a task to carry.

    The bundle has the files of that commit and nothing of its history, which may hold what was removed for a
    reason. Changes that are not committed are not in it: see `uncommitted`.

    Args:
        path: The repository's working tree, or a bare repository.
        commit: A branch, a tag, or the beginning of a commit's name; default: what is checked out (HEAD).

    Returns:
        What the task says about its repository, and the content of the artifact `repository`.

    Raises:
        RepositoryError: If there is no such repository or commit, or it has more than 64 MiB.
    """
    top = await _top(path)
    wanted = commit or "HEAD"
    found = await git(
        "rev-parse", "--verify", "--quiet", "--end-of-options", f"{wanted}^{{commit}}", folder=top
    )
    if found.code:
        problem = (
            "has no commit yet: commit something first" if commit is None else f"has no commit {wanted!r}"
        )
        raise RepositoryError(f"the repository {str(path)!r} {problem}")
    name = found.output.decode().split()[-1]
    failed = f"commit {name[:12]} of {str(path)!r} cannot be packed"
    listed = checked(await git("rev-list", "--objects", "--no-walk", name, "--", folder=top), failed)
    objects = b"".join(line.split(b" ", 1)[0] + b"\n" for line in listed.splitlines())
    packing = await git(
        *("pack-objects", "--stdout", "--quiet", "--delta-base-offset"),
        folder=top,
        given=objects,
        output_limit=BUNDLE_LIMIT,
        seconds=FETCH_SECONDS,
    )
    head = BUNDLE_HEADS[0] if len(name) < SHA256_DIGITS else BUNDLE_HEADS[1] + b"@object-format=sha256\n"
    content = head + f"{name} refs/heads/callboard\n\n".encode()
    if packing.cut or len(content) + len(packing.output) > BUNDLE_LIMIT:
        raise RepositoryError(
            f"commit {name[:12]} of {str(path)!r} is too large to travel with a task: more than"
            f" {BUNDLE_LIMIT // MIB} MiB; let the task name an address that the workers may open ({SETTING})"
        )
    content += checked(packing, failed)
    return RepositoryReference(commit=name, name=top.name), content


async def uncommitted(path: Path) -> tuple[str, ...]:
    """Give the paths with changes that a bundle of HEAD does not have: changed, deleted or not tracked.

    Raises:
        RepositoryError: If there is no such repository.
    """
    top = await _top(path)
    if (await git("rev-parse", "--is-bare-repository", folder=top)).output.strip() == b"true":
        return ()
    arguments = ("status", "--porcelain=v1", "--no-renames", "-z")
    status = await git(*arguments, folder=top, settings={"core.symlinks": "true"})
    entries = checked(status, f"the state of {str(path)!r} cannot be told").split(b"\0")
    return tuple(entry[3:].decode(errors="replace") for entry in entries if entry)


async def repository_from_folder(folder: Path, scratch: Path) -> Path:
    """Make a repository of a plain folder; the same files always make the same commit.

    Args:
        folder: What to copy; caches, virtual environments and `.git` stay behind.
        scratch: Where the repository is made, in a folder of the same name.

    Raises:
        RepositoryError: If there is no such folder, or it cannot be committed.
    """
    made = scratch / (await asyncio.to_thread(folder.resolve)).name
    failed = f"no repository can be made of {str(folder)!r}"

    def copy() -> None:
        shutil.copytree(folder, made, symlinks=True, ignore=LEFT_BEHIND)

    try:
        await asyncio.to_thread(copy)
    except OSError as error:
        raise RepositoryError(f"{failed}: {error}") from error
    when = "2026-01-01T00:00:00+0000"
    people = {
        f"GIT_{person}_{what}": value
        for person in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "Callboard"), ("EMAIL", "callboard@localhost"), ("DATE", when))
    }
    # Permissions depend on how the folder got here, so they do not count.
    settings = {"core.fileMode": "false", "core.symlinks": "true"}
    for arguments in (
        ("init", "--quiet", "--template="),
        ("add", "--all"),
        ("commit", "--quiet", "--no-verify", "--message", f"{made.name} as it is"),
    ):
        checked(await git(*arguments, folder=made, settings=settings, environment=people), failed)
    return made


def _scratch_folder() -> "tempfile.TemporaryDirectory[str]":
    # What a repository's tests leave behind may resist removal; that is no reason to fail a run.
    return tempfile.TemporaryDirectory(prefix="callboard-", ignore_cleanup_errors=True)


def _display_name(reference: RepositoryReference) -> str:
    name = reference.name or (reference.url or "").rstrip("/").rsplit("/", 1)[-1].removesuffix(".git")
    return "".join(letter for letter in name if letter.isprintable())[:100] or reference.commit[:12]


async def _start(checkout: Checkout) -> None:
    await asyncio.to_thread(checkout.root.mkdir)
    kind = "sha256" if len(checkout.commit) == SHA256_DIGITS else "sha1"
    made = await checkout.git("init", "--quiet", "--template=", f"--object-format={kind}")
    checked(made, "no scratch repository can be made")


async def _take_bundle(checkout: Checkout, content: bytes) -> None:
    which = f"the bundle of repository {checkout.name!r} that came with the task"
    if len(content) > BUNDLE_LIMIT:
        raise RepositoryError(
            f"{which} is too large: {len(content)} bytes, at most {BUNDLE_LIMIT // MIB} MiB are taken"
        )
    if not content.startswith(BUNDLE_HEADS):
        raise RepositoryError(
            f"{which} is no git bundle; make one with `callboard publish --repository PATH`"
        )
    file = checkout.scratch / "repository.bundle"
    await asyncio.to_thread(file.write_bytes, content)
    unbundled = await checkout.git("bundle", "unbundle", file)
    checked(unbundled, f"{which} is incomplete or corrupt")
    await asyncio.to_thread(file.unlink)
    await _need_commit(checkout, which)


async def _take_address(checkout: Checkout, source: Source) -> None:
    which = f"the repository {source.location!r}"
    if source.is_folder:
        environment = await _open_folder(checkout, source)
    else:
        environment = {name: os.environ[name] for name in ADDRESS_VARIABLES if name in os.environ}
        environment["GIT_SSH_COMMAND"] = "ssh -oBatchMode=yes"
    environment["GIT_ALLOW_PROTOCOL"] = source.protocol
    fetching = asyncio.ensure_future(
        git(
            *("fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--"),
            *(source.location, checkout.commit),
            folder=checkout.root,
            environment=environment,
            seconds=FETCH_SECONDS,
        )
    )
    try:
        while not (await asyncio.wait({fetching}, timeout=0.2))[0]:
            if await asyncio.to_thread(_bytes_below, checkout.root / ".git") > BUNDLE_LIMIT:
                raise RepositoryError(
                    f"{which} is too large: more than {BUNDLE_LIMIT // MIB} MiB for one commit"
                )
    finally:
        if not fetching.done():
            fetching.cancel()
            await asyncio.wait({fetching})
    fetched = fetching.result()
    if fetched.code and (b"not our ref" in fetched.errors or b"remote ref" in fetched.errors):
        raise RepositoryError(f"commit {checkout.commit} is not in {which}")
    checked(fetched, f"{which} cannot be fetched")
    await _need_commit(checkout, which)


async def _open_folder(checkout: Checkout, source: Source) -> dict[str, str]:
    """Make sure that a permitted folder is a repository, all of which lies in permitted folders.

    Its owner need not be the worker: whoever set up the worker named the folder. That goes into a
    configuration file, the only place where the git that serves the fetch looks for it.
    """
    which = f"the repository {source.location!r}"
    folder = Path(source.location)
    if not await asyncio.to_thread(folder.is_dir):
        raise RepositoryError(f"{which} does not exist on this worker")
    configuration = checkout.scratch / "gitconfig"
    quoted = [re.sub(r'(["\\])', r"\\\1", str(place)) for place in (folder, folder / ".git")]
    entries = "".join(f'\tdirectory = "{place}"\n' for place in quoted)
    await asyncio.to_thread(configuration.write_text, f"[safe]\n{entries}")
    environment = {"GIT_CONFIG_GLOBAL": str(configuration), "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    arguments = ("rev-parse", "--absolute-git-dir", "--git-path", "objects")
    told = await git(*arguments, folder=folder, environment=environment)
    if told.code:
        raise RepositoryError(f"{which} is no git repository: {told.last_words()}")
    places = [(folder / line).resolve() for line in told.output.decode(errors="replace").splitlines()]
    if not all(any(place.is_relative_to(allowed) for allowed in source.allowed) for place in places):
        raise RepositoryError(f"{which} keeps its objects in a folder that {SETTING} does not allow")
    if await asyncio.to_thread((places[-1] / "info" / "alternates").exists):
        raise RepositoryError(
            f"{which} borrows objects from other repositories; `git repack -a -d` and removing"
            " objects/info/alternates makes it whole"
        )
    return environment


async def _need_commit(checkout: Checkout, which: str) -> None:
    kind = await checkout.git("cat-file", "-t", checkout.commit)
    if kind.output.strip() != b"commit":
        raise RepositoryError(f"commit {checkout.commit} is not in {which}")


async def _fill(checkout: Checkout) -> Checkout:
    """Check out the files, after looking at how many there are: a few bytes can unpack to very many."""
    which = f"commit {checkout.commit[:12]} of repository {checkout.name!r}"
    filled = await _listed(checkout, checkout.commit)
    size = sum(file.size for file in filled.files)
    if len(filled.files) > FILES_LIMIT or size > TREE_LIMIT:
        raise RepositoryError(
            f"{which} is too large: {len(filled.files)} files with {size // MIB} MiB; the limits are"
            f" {FILES_LIMIT} files and {TREE_LIMIT // MIB} MiB"
        )
    checked(
        await checkout.git("checkout", "--quiet", "--detach", "--no-recurse-submodules", checkout.commit),
        f"{which} cannot be checked out",
    )
    if not checkout.patch:
        return filled
    applied = await checkout.apply(checkout.patch)
    if applied.code or applied.timed_out:
        raise ArtifactError(f"the artifact {PATCH!r} does not apply to {which}: {applied.last_words()}")
    tree = checked(await checkout.git("write-tree"), f"the patched tree of {which} cannot be written")
    return await _listed(checkout, tree.decode().strip())


async def _listed(checkout: Checkout, tree: str) -> Checkout:
    failed = f"the files of repository {checkout.name!r} cannot be listed"
    listing = checked(await checkout.git("ls-tree", "-r", "-z", "-l", "--full-tree", tree), failed)
    files: list[TrackedFile] = []
    links: list[str] = []
    submodules: list[str] = []
    unreadable = 0
    for line in filter(None, listing.split(b"\0")):
        entry = TREE_ENTRY.fullmatch(line)
        if entry is None:
            raise RepositoryError(f"{failed}: git says {line[:200]!r}")
        mode, _, size, name = entry.groups()
        try:
            path = name.decode()
        except UnicodeDecodeError:
            unreadable += 1
            continue
        if mode in REGULAR:
            files.append(TrackedFile(path, int(size)))
        elif mode == LINK:
            links.append(path)
        elif mode == SUBMODULE:
            submodules.append(path)
    return replace(
        checkout,
        files=tuple(files),
        links=tuple(links),
        submodules=tuple(submodules),
        unreadable_names=unreadable,
    )


async def _top(path: Path) -> Path:
    """Give the top folder of the repository at `path`.

    Raises:
        RepositoryError: If there is none, or `path` is only a part of one.
    """
    which = str(path)
    if not await asyncio.to_thread(path.is_dir):
        raise RepositoryError(f"there is no folder {which!r}")
    folder = await asyncio.to_thread(path.resolve)
    shown = await git("rev-parse", "--is-bare-repository", "--absolute-git-dir", "--show-cdup", folder=folder)
    lines = shown.output.decode(errors="replace").split("\n")
    if lines[0] == "true" and Path(lines[1]) == folder:
        return folder
    if b"dubious ownership" in shown.errors:
        raise RepositoryError(f"{which!r} belongs to another user, so git does not read it")
    make_one = "git init && git add . && git commit -m 'first'"
    if shown.code:
        place = shlex.quote(which)
        raise RepositoryError(f"{which!r} is no git repository; make it one: cd {place} && {make_one}")
    if lines[2:3] != [""]:
        top = (folder / lines[2]).resolve() if len(lines) > 2 else folder.parent  # noqa: PLR2004 (three answers)
        raise RepositoryError(
            f"{which!r} is a folder inside the repository {str(top)!r}: give that one, or copy the folder to"
            f" where no repository is and make it one: {make_one}"
        )
    return folder


def _bytes_below(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).lstat().st_size
            except FileNotFoundError:  # git moved it meanwhile
                continue
    return total
