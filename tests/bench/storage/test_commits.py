"""The commit of a checkout: right, and found without running anything that the checkout names."""

import os
import shutil
import subprocess

import pytest

from modal_ntk.bench.storage.commits import commit_of
from modal_ntk.bench.storage.manifest import commits

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    (folder / "sub").mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "sub" / "file").write_text("one")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def test_the_commit_is_gits(checkout):
    """From the root and from within, on a branch, detached, packed, and in a linked work tree."""
    head = git(checkout, "rev-parse", "HEAD")
    assert commit_of(checkout) == commit_of(checkout / "sub") == head
    git(checkout, "checkout", "-q", "--detach")
    assert commit_of(checkout) == head
    git(checkout, "checkout", "-q", "-b", "other/branch")
    git(checkout, "pack-refs", "--all")
    assert commit_of(checkout) == head
    git(checkout, "worktree", "add", "-q", "-b", "third", str(checkout.parent / "linked"))
    assert commit_of(checkout.parent / "linked") == head


def test_changes_are_seen(checkout):
    """What git follows and has changed is told, staged or not; what it does not follow is not."""
    head = git(checkout, "rev-parse", "HEAD")
    (checkout / "new").write_text("unknown to git")
    assert commit_of(checkout) == head
    (checkout / "sub" / "file").write_text("two!")
    assert commit_of(checkout) == f"{head}+changes"
    git(checkout, "add", "sub")
    assert commit_of(checkout) == f"{head}+changes"


def test_nothing_of_the_checkout_is_run(checkout, monkeypatch):
    """Monitor, filter and hooks that the checkout's configuration names stay unrun, also those of the user's own."""
    spring = f"touch {checkout.parent / 'sprung'}; cat"
    git(checkout, "config", "core.fsmonitor", f"{spring}; false")
    git(checkout, "config", "filter.trap.clean", spring)
    home = checkout.parent / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f'[filter "trap"]\n\tclean = {spring}\n')
    monkeypatch.setenv("HOME", str(home))
    (checkout / ".gitattributes").write_text("* filter=trap\n")
    (checkout / "sub" / "file").write_text("one")
    os.utime(checkout / "sub" / "file", (1, 1))
    monkeypatch.chdir(checkout)
    assert commits()["working_directory"] is not None
    assert not (checkout.parent / "sprung").exists()
    # The trap works: git's own command springs it.
    subprocess.run(["git", "-C", str(checkout), "status", "--porcelain"], capture_output=True, check=False)
    assert (checkout.parent / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".git", "gitdir: nowhere"),
        (".git", "no git at all"),
        (".git/HEAD", "ref: ../../etc/passwd"),
        (".git/HEAD", "ref: refs/heads/none"),
        (".git/HEAD", "\x1b[2J"),
        (".git/HEAD", ""),
    ],
)
def test_what_is_no_checkout_has_no_commit(tmp_path, name, text):
    """Damaged or hostile files of git are no commit, and no error."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    (tmp_path / ".git").is_dir() and (tmp_path / ".git" / "packed-refs").write_text("# none\n")
    assert commit_of(tmp_path) is None


def test_a_git_that_cannot_tell_is_said(checkout, monkeypatch):
    """Without git the commit is still known; whether anything has changed is not, and that is told."""
    head = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("PATH", str(checkout))
    assert commit_of(checkout) == f"{head}+unknown"
