"""Published weights arrive once, whole and verified, however the server behaves."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from release_server import ReleaseServer, serve
from voxnest.errors import CheckpointError, ConfigError
from voxnest.hub import download
from voxnest.hub.download import fetch, file_digest
from voxnest.hub.releases import find_release

RELEASE = find_release("redimnet-b2")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def archive(seed: int = 1) -> bytes:
    """Something of a weights file's outer form, 200 kB."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(zipfile.ZipInfo("archive/data"), bytes((i * seed) % 251 for i in range(200_000)))
    return buffer.getvalue()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReleaseServer]:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "BACKOFF", 0.01)
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    monkeypatch.setenv("VOXNEST_HOME", str(tmp_path / "home"))
    with serve() as running:
        running.files[RELEASE.file] = archive()
        monkeypatch.setenv("VOXNEST_MIRROR", running.address)
        yield running


def names(folder: Path) -> set[str]:
    """The files of a cache, less locks."""
    return {path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_a_download_is_kept_and_asked_for_once(server: ReleaseServer, tmp_path: Path) -> None:
    path = fetch(RELEASE, progress=False)
    assert path == tmp_path / "home" / "weights" / "redimnet" / "b2-vox2-ft_lm.pt"
    assert path.read_bytes() == archive()
    assert names(tmp_path) == {"b2-vox2-ft_lm.pt", "b2-vox2-ft_lm.pt.sha256"}
    server.shutdown()
    server.server_close()
    assert fetch(RELEASE, progress=False) == path
    assert len(server.requests) == 1


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VOXNEST_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert download.weights_folder() == tmp_path / ".cache" / "voxnest" / "weights"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert download.weights_folder() == tmp_path / "xdg" / "voxnest" / "weights"
    monkeypatch.setenv("VOXNEST_HOME", str(tmp_path / "home"))
    assert download.weights_folder() == tmp_path / "home" / "weights"


@pytest.mark.parametrize("status", [404, 403, 500, 503])
def test_a_refusal_names_the_address(server: ReleaseServer, tmp_path: Path, status: int) -> None:
    server.status = status
    with pytest.raises(CheckpointError, match=str(status)) as error:
        fetch(RELEASE, progress=False)
    assert server.address + RELEASE.file in str(error.value)
    assert "\n" not in str(error.value)
    assert names(tmp_path) == set()
    assert len(server.requests) == (1 if status < 500 else download.ATTEMPTS)


def test_no_server_is_one_line(server: ReleaseServer) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(CheckpointError, match="cannot be reached") as error:
        fetch(RELEASE, progress=False)
    assert "\n" not in str(error.value)


def test_an_error_says_what_to_do_offline(server: ReleaseServer) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(CheckpointError, match=f"put the file at {download.cached_path(RELEASE)}") as error:
        fetch(RELEASE, progress=False)
    assert "VOXNEST_MIRROR=https://" in str(error.value)


def test_a_broken_connection_is_resumed(server: ReleaseServer) -> None:
    server.cuts = [50_000, 60_000]
    path = fetch(RELEASE, progress=False)
    assert path.read_bytes() == archive()
    assert [asked for _, asked in server.requests] == [None, "bytes=50000-", "bytes=110000-"]


@pytest.mark.parametrize("missing", ["ranges", "validators", "lengths"])
def test_a_server_that_can_do_less_gives_the_whole_file(server: ReleaseServer, missing: str) -> None:
    setattr(server, missing, False)
    if missing != "lengths":  # without a length only the archive's own end tells that it is whole
        server.cuts = [50_000]
    assert fetch(RELEASE, progress=False).read_bytes() == archive()


def test_a_cut_body_of_unknown_length_is_refused(server: ReleaseServer, tmp_path: Path) -> None:
    server.lengths = False
    server.cuts = [150_000]
    with pytest.raises(CheckpointError, match="something else"):
        fetch(RELEASE, progress=False)
    assert names(tmp_path) == set()


def test_the_next_call_goes_on_where_the_last_gave_up(server: ReleaseServer, tmp_path: Path) -> None:
    server.cuts = [50_000, 0, 0, 0]
    with pytest.raises(CheckpointError, match="broke at 50000 bytes"):
        fetch(RELEASE, progress=False)
    assert names(tmp_path) == {"b2-vox2-ft_lm.pt.part", "b2-vox2-ft_lm.pt.part.json"}
    assert fetch(RELEASE, progress=False).read_bytes() == archive()
    assert server.requests[-1][1] == "bytes=50000-"
    assert names(tmp_path) == {"b2-vox2-ft_lm.pt", "b2-vox2-ft_lm.pt.sha256"}


def test_a_file_replaced_meanwhile_is_not_mixed_with_the_old(server: ReleaseServer) -> None:
    server.cuts = [50_000, 0, 0, 0]
    with pytest.raises(CheckpointError, match="broke"):
        fetch(RELEASE, progress=False)
    server.files[RELEASE.file] = archive(3)
    assert fetch(RELEASE, progress=False).read_bytes() == archive(3)


def test_without_a_validator_a_later_call_starts_over(server: ReleaseServer) -> None:
    server.validators = False
    server.cuts = [50_000, 0, 0, 0]
    with pytest.raises(CheckpointError, match="broke"):
        fetch(RELEASE, progress=False)
    assert fetch(RELEASE, progress=False).read_bytes() == archive()
    assert server.requests[-1][1] is None


def test_a_stalled_server_is_given_up(server: ReleaseServer, tmp_path: Path) -> None:
    server.stall, server.ranges = 3.0, False
    with pytest.raises(CheckpointError, match=r"no answer for 0\.3 s"):
        fetch(RELEASE, progress=False)
    assert RELEASE.file not in names(tmp_path)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><title>Log in</title>", archive()[:-5000]])
def test_what_is_no_weights_file_is_not_kept(server: ReleaseServer, tmp_path: Path, content: bytes) -> None:
    server.files[RELEASE.file] = content
    with pytest.raises(CheckpointError, match="something else"):
        fetch(RELEASE, progress=False)
    assert names(tmp_path) == set()
    server.files[RELEASE.file] = archive()
    assert fetch(RELEASE, progress=False).read_bytes() == archive()


def test_a_damaged_archive_is_not_kept(server: ReleaseServer, tmp_path: Path) -> None:
    content = bytearray(archive())
    content[100_000] ^= 1
    server.files[RELEASE.file] = bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        fetch(RELEASE, progress=False)
    assert names(tmp_path) == set()


def test_a_file_that_changes_in_the_cache_is_refused(server: ReleaseServer) -> None:
    path = fetch(RELEASE, progress=False)
    path.write_bytes(archive(3))
    with pytest.raises(CheckpointError, match="has changed since its first use"):
        fetch(RELEASE, progress=False)


def test_other_bytes_the_second_time_are_refused(server: ReleaseServer) -> None:
    path = fetch(RELEASE, progress=False)
    path.unlink()
    server.files[RELEASE.file] = archive(3)
    with pytest.raises(CheckpointError, match="differs from the file first used"):
        fetch(RELEASE, progress=False)
    assert not path.exists()


def test_a_wanted_digest_is_compared(server: ReleaseServer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="SHA-256"):
        fetch(RELEASE, progress=False, sha256="0" * 64)
    assert names(tmp_path) == set()
    path = fetch(RELEASE, progress=False)
    assert fetch(RELEASE, progress=False, sha256=file_digest(path).upper()) == path
    with pytest.raises(CheckpointError, match="SHA-256"):
        fetch(RELEASE, progress=False, sha256="0" * 64)


def test_two_processes_end_with_one_good_file(server: ReleaseServer, tmp_path: Path) -> None:
    server.delay = 0.3
    code = "from voxnest.hub import fetch, find_release; fetch(find_release('redimnet-b2'), progress=False)"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ)
        for _ in range(2)
    ]
    for process in processes:
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint
    assert len(server.requests) == 1
    assert names(tmp_path) == {"b2-vox2-ft_lm.pt", "b2-vox2-ft_lm.pt.sha256"}


def test_a_mirror_that_is_no_web_address_is_refused(server: ReleaseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXNEST_MIRROR", "file:///etc/")
    with pytest.raises(ConfigError, match="VOXNEST_MIRROR"):
        fetch(RELEASE, progress=False)


def test_a_proxy_of_the_environment_is_used(server: ReleaseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("VOXNEST_MIRROR", "http://weights.invalid/")
    assert fetch(RELEASE, progress=False).read_bytes() == archive()


def test_a_folder_that_cannot_be_made_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("VOXNEST_HOME", str(tmp_path / "home"))
    with pytest.raises(CheckpointError, match="cannot be written"):
        fetch(RELEASE, progress=False)
