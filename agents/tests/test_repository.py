"""Which repositories may be opened, and what hostile ones can do: nothing."""

from pathlib import Path

import pytest

from agents.core import AgentStatus
from agents.core.errors import ArtifactError, ConfigurationError, RepositoryError
from agents.core.task import RepositoryReference
from agents.specialized import CodeReviewerAgent, ResearcherAgent
from agents.specialized import repository as module
from agents.specialized.permission import permitted
from agents.specialized.repository import bundle, repository_from_folder, uncommitted
from agents.tests.specialized_helpers import OFF, SAMPLE, Repository, World

FILES = {"shop.py": '"""A shop."""\n\nprice = 1\n'}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "served" / "shop", FILES)


async def refuse(world: World, *words: str) -> None:
    """Check that a repository cannot be opened, with a message that says all of `words`."""
    with pytest.raises((RepositoryError, ArtifactError)) as caught:
        await world.run(ResearcherAgent(OFF), "look")
    for word in words:
        assert word in str(caught.value)
    assert "callboard-" not in str(caught.value), "a scratch folder's name leaks"


def by_address(url: str, commit: str = "a" * 40) -> World:
    return World(RepositoryReference(commit=commit, url=url))


# Permission


@pytest.mark.parametrize(
    ("url", "setting"),
    [
        ("https://git.example.org/shop", "https://git.example.org"),
        ("https://git.example.org/shop/core.git", "bundles, https://git.example.org/shop/"),
        ("ssh://git@git.example.org/shop", "ssh://git@git.example.org"),
    ],
)
def test_prefixes_allow_what_lies_below(url: str, setting: str) -> None:
    assert permitted(url, setting).location == url


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example.org/shop",
        "https://git.example.org.evil.example/team/shop",
        "https://git.example.org@evil.example/team/shop",
        "https://git.example.org/team-evil/shop",
        "https://git.example.org/team/../other/shop",
        "https://git.example.org/team/%2e%2e/other/shop",
        "https://git.example.org/team/%2e%2e%2fother",
        "https://user:secret@git.example.org/team/shop",
        "https://git.example.org/team/shop?x=1",
        "https://git.example.org/team/shop#x",
        "https://git.example.org/team\\..\\shop",
        "https://git.example.org/team/shop\n",
        "http://git.example.org/team/shop",
        "ext::sh -c touch% /tmp/evil",
        "https::https://git.example.org/team/shop",
        "file:///srv/git/shop",
        "git@git.example.org:team/shop",
        "--upload-pack=touch /tmp/evil",
        "-oProxyCommand=evil",
        "ssh://-oProxyCommand=evil/team/shop",
        "/srv/git-evil/shop",
        "/srv/git/../../etc",
        "srv/git/shop",
        "https://[/team",
        "",
    ],
)
def test_tricks_with_addresses_are_refused(url: str) -> None:
    with pytest.raises(RepositoryError):
        permitted(url, "https://git.example.org/team, /srv/git")


def test_nothing_but_bundles_is_allowed_by_default() -> None:
    with pytest.raises(RepositoryError, match="CALLBOARD_REPOSITORIES allows only bundles"):
        permitted("https://git.example.org/shop", "")


def test_a_setting_that_makes_no_sense_is_said() -> None:
    with pytest.raises(ConfigurationError, match="CALLBOARD_REPOSITORIES"):
        permitted("https://git.example.org/shop", "git.example.org")


# Folders on this machine


async def test_an_allowed_folder_is_opened(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_REPOSITORIES", str(repository.folder.parent))
    result = await by_address(str(repository.folder), repository.head).run(ResearcherAgent(OFF), "")
    assert result.status is AgentStatus.COMPLETED
    await refuse(by_address(str(repository.folder), "b" * 40), "commit bbbb", "is not in", "shop")


async def test_folders_that_cannot_be_opened(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = repository.folder.parent
    monkeypatch.setenv("CALLBOARD_REPOSITORIES", str(served))
    (served / "plain").mkdir()
    await refuse(by_address(str(served / "missing")), "missing", "does not exist")
    await refuse(by_address(str(served / "plain")), "plain", "no git repository")
    secret = Repository(tmp_path / "secret", FILES)
    (served / "link").symlink_to(secret.folder)
    await refuse(by_address(str(served / "link"), secret.head), "CALLBOARD_REPOSITORIES")
    (served / "plain" / ".git").write_text(f"gitdir: {secret.folder}/.git\n")
    await refuse(by_address(str(served / "plain"), secret.head), "CALLBOARD_REPOSITORIES does not allow")
    borrower = Repository(served / "borrower", FILES)
    (borrower.folder / ".git/objects/info/alternates").write_text(f"{secret.folder}/.git/objects\n")
    await refuse(by_address(str(borrower.folder), secret.head), "borrows")
    await refuse(by_address(str(served) + "-evil"), "CALLBOARD_REPOSITORIES")


# Bundles


async def test_a_bundle_has_one_commit_and_no_history(repository: Repository) -> None:
    repository.commit({"secret.py": "token = 'removed later'\n"})
    (repository.folder / "secret.py").unlink()
    head = repository.commit({"shop.py": "price = 2\n"})
    reference, content = await bundle(repository.folder)
    assert (reference.commit, reference.url, reference.name) == (head, None, "shop")
    output = await World(reference, content).output(ResearcherAgent(OFF), "price")
    assert [file["path"] for file in output["files"]] == ["shop.py"]
    await refuse(
        World(RepositoryReference(commit=repository.git("rev-parse", "HEAD~1")), content), "is not in"
    )


async def test_older_commits_and_shallow_clones_can_be_bundled(
    repository: Repository, tmp_path: Path
) -> None:
    first = repository.head
    repository.commit({"shop.py": "price = 2\n"})
    assert (await bundle(repository.folder, "HEAD~1"))[0].commit == first
    shallow = Repository(tmp_path / "shallow")
    shallow.git("fetch", "--quiet", "--depth=1", f"file://{repository.folder}", "HEAD")
    shallow.git("checkout", "--quiet", "FETCH_HEAD")
    reference, content = await bundle(shallow.folder)
    assert (await World(reference, content).output(ResearcherAgent(OFF), ""))["files"]


async def test_sha256_repositories_work(tmp_path: Path) -> None:
    folder = tmp_path / "modern"
    folder.mkdir()
    repository = Repository.__new__(Repository)
    repository.folder = folder
    repository.git("init", "--quiet", "--object-format=sha256")
    repository.commit(FILES)
    world = World(*await bundle(folder))
    assert (await world.output(ResearcherAgent(OFF), ""))["repository"]["commit"] == repository.head


async def test_paths_that_cannot_be_bundled(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(path: Path, words: str, commit: str | None = None) -> None:
        with pytest.raises(RepositoryError, match=words):
            await bundle(path, commit)

    (repository.folder / "part").mkdir()
    await check(repository.folder / "part", "a folder inside the repository .*git init")
    await check(tmp_path / "missing", "there is no folder")
    (tmp_path / "plain").mkdir()
    await check(tmp_path / "plain", "no git repository; make it one: .*git init")
    await check(Repository(tmp_path / "empty").folder, "has no commit yet")
    await check(repository.folder, "has no commit 'v9'", "v9")
    await check(repository.folder, "has no commit '--all'", "--all")
    monkeypatch.setattr(module, "BUNDLE_LIMIT", 100)
    await check(repository.folder, "too large")


async def test_uncommitted_changes_are_told(repository: Repository) -> None:
    assert await uncommitted(repository.folder) == ()
    (repository.folder / "shop.py").write_text("price = 3\n")
    (repository.folder / "new.py").write_text("")
    assert set(await uncommitted(repository.folder)) == {"shop.py", "new.py"}


async def test_a_folder_always_makes_the_same_commit(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    copies = [await repository_from_folder(SAMPLE, tmp_path / place) for place in ("one", "two")]
    references = [(await bundle(copy))[0] for copy in copies]
    assert references[0] == references[1]
    with pytest.raises(RepositoryError, match="no repository can be made"):
        await repository_from_folder(tmp_path / "missing", tmp_path)


async def test_broken_bundles_are_refused(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, content = await bundle(repository.folder)
    await refuse(World(None), "names no repository")
    await refuse(World(reference), "no artifact named 'repository'")
    await refuse(World(reference, b"PK\x03\x04"), "'shop'", "no git bundle")
    await refuse(World(reference, content[:-30]), "'shop'", "incomplete or corrupt")
    await refuse(World(reference, content[:-40] + bytes(40)), "'shop'", "incomplete or corrupt")
    monkeypatch.setattr(module, "BUNDLE_LIMIT", len(content) - 1)
    await refuse(World(reference, content), "too large")


async def test_what_unpacks_to_too_much_is_refused(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({"large.bin": bytes(3 * 1024 * 1024)})
    reference, content = await bundle(repository.folder)
    monkeypatch.setattr(module, "TREE_LIMIT", 1024 * 1024)
    await refuse(World(reference, content), "too large", "limits are")


async def test_a_tree_that_would_write_into_git_itself_is_refused(repository: Repository) -> None:
    hook = repository.git("hash-object", "-w", "--stdin", given=b"#!/bin/sh\ntouch /tmp/evil\n")
    hooks = repository.git("mktree", given=f"100755 blob {hook}\tpost-checkout\n".encode())
    inner = repository.git("mktree", given=f"040000 tree {hooks}\thooks\n".encode())
    tree = repository.git("mktree", given=f"040000 tree {inner}\t.git\n".encode())
    commit = repository.git("commit-tree", tree, "-m", "evil")
    repository.git("update-ref", "refs/heads/evil", commit)
    reference, content = await bundle(repository.folder, "evil")
    await refuse(World(reference, content), "'shop'")


# Checkouts


async def test_links_do_not_lead_out(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text("password = 'hunter2'\n")
    (repository.folder / "link.py").symlink_to(tmp_path / "secret.py")
    (repository.folder / "folder").symlink_to(tmp_path)
    head = repository.commit({})
    assert repository.git("ls-tree", head, "link.py").startswith("120000")
    world = World(*await bundle(repository.folder))
    output = await world.output(ResearcherAgent(OFF), "password hunter2")
    assert "hunter2" not in str(output["files"])
    assert output["left_out"] == [
        {"why": "symbolic link, not followed", "count": 2, "examples": ["folder", "link.py"]}
    ]
    review = await world.output(CodeReviewerAgent(OFF), "")
    assert review["reviewed"] == ["shop.py"]


async def test_submodules_are_not_fetched(repository: Repository) -> None:
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{'c' * 40},vendored")
    repository.git("commit", "--quiet", "--message", "submodule")
    output = await World(*await bundle(repository.folder)).output(ResearcherAgent(OFF), "")
    assert output["left_out"][0]["why"] == "submodule, not fetched"


async def test_a_patch_that_does_not_fit_is_refused(repository: Repository) -> None:
    world = World(*await bundle(repository.folder))
    world.add("patch", b"--- a/shop.py\n+++ b/shop.py\n@@ -1 +1 @@\n-other\n+text\n")
    await refuse(world, "'patch'", "does not apply", "shop.py")
    world.add("patch", b"--- /dev/null\n+++ b/../../outside.py\n@@ -0,0 +1 @@\n+evil\n")
    await refuse(world, "'patch'", "does not apply")
