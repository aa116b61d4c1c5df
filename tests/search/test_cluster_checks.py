"""What is said of a cluster's nodes that cannot compute a search; no Ray is started here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from search.cluster_checks import NodeAnswer, judgement
from search.node_report import MISSING, NONCE, NodeReport, cohort_digest, file_system, look, look_and_answer

STORAGE = Path("/shared/searches")
VERSIONS = {"python": "3.11.9", "torch": "2.9.0+cpu", "numpy": "2.1.0"}
HERE = NodeReport(
    there=True,
    nonce="a1",
    exclusive=True,
    lacking=None,
    file_system="nfs4",
    versions=VERSIONS,
    sources="d1",
    sources_at="/home/me/genmix/search",
    cohort="c1",
)
GOOD = NodeAnswer(address="10.0.0.2", host="gpu1", report=HERE, written=True)


def said(*answers: NodeAnswer) -> str:
    return judgement(answers, HERE, STORAGE, VERSIONS) or ""


def other(report: NodeReport, *, number: int = 3, written: bool = True) -> NodeAnswer:
    return NodeAnswer(address=f"10.0.0.{number}", host=f"gpu{number - 1}", report=report, written=written)


def test_nodes_that_see_the_same_may_compute() -> None:
    assert judgement([GOOD, other(HERE)], HERE, STORAGE, VERSIONS) is None


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (replace(HERE, there=False, nonce=None), "the folder /shared/searches cannot be seen there; mount the folder"),
        (replace(HERE, nonce=None, file_system="overlay"), "is another folder there (overlay)"),
        (replace(HERE, nonce="b2", file_system="tmpfs"), "is another folder there (tmpfs)"),
        (replace(HERE, exclusive=False), "lacks exclusive create there (nfs4)"),
        (
            replace(HERE, lacking="a file cannot replace another"),
            "cannot be used there (a file cannot replace another;",
        ),
        (replace(HERE, cohort=None), "the decoded images in /shared/searches cannot be read there"),
        (replace(HERE, cohort="c2"), "the decoded images in /shared/searches have other bytes there"),
        (replace(HERE, versions={**VERSIONS, "numpy": "2.2.0"}), "numpy has version 2.2.0 there, and version 2.1.0"),
        (replace(HERE, versions={**VERSIONS, "numpy": MISSING}), "numpy is missing there, and version 2.1.0"),
        (
            replace(HERE, versions={**VERSIONS, "python": "3.12.9"}),
            "python has version 3.12.9 there, and version 3.11.9",
        ),
        (replace(HERE, sources="d2", sources_at="/opt/old/search"), "is loaded there, from /opt/old/search; remove it"),
    ],
)
def test_a_node_that_differs_is_named_with_what_to_do(report: NodeReport, words: str) -> None:
    lines = said(GOOD, other(report)).splitlines()
    assert lines[0] == "1 of the cluster's 2 nodes cannot compute this search:"
    assert len(lines) == 2
    assert lines[1].startswith("- node 10.0.0.3 (gpu2): ")
    assert words in lines[1]
    assert lines[1].count(". ") == 0, "one sentence"


def test_a_node_whose_files_do_not_arrive_here_is_named() -> None:
    assert "does not arrive here (nfs4)" in said(GOOD, other(HERE, written=False))


def test_builds_for_other_devices_and_patch_releases_of_python_do_not_count() -> None:
    report = replace(HERE, versions={"python": "3.11.2", "torch": "2.9.0+cu128", "numpy": "2.1.0"})
    assert said(other(report)) == ""


def test_nodes_with_the_same_trouble_share_a_line_and_each_trouble_has_one() -> None:
    old = replace(HERE, sources="d2", sources_at="/opt/old/search")
    silent = NodeAnswer(address="10.0.0.9", host="gpu8", failure="does not answer within 60 s; stop it")
    lines = said(GOOD, other(old), other(old, number=4), other(replace(old, nonce=None), number=5), silent).splitlines()
    assert lines[0] == "4 of the cluster's 5 nodes cannot compute this search:"
    assert lines[1].startswith("- nodes 10.0.0.3 (gpu2), 10.0.0.4 (gpu3) and 10.0.0.5 (gpu4): another version")
    assert lines[2].startswith("- node 10.0.0.5 (gpu4): /shared/searches is another folder there")
    assert lines[3] == "- node 10.0.0.9 (gpu8): it does not answer within 60 s; stop it."
    assert len(lines) == 4


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / NONCE).write_text("a1")
    return tmp_path / "probe"


def test_a_node_reports_what_it_sees_and_leaves_an_answer(tmp_path: Path, probe: Path) -> None:
    report = look_and_answer("node7", tmp_path, None, ["python", "torch", "no-such-package"], probe)
    assert (report.there, report.nonce, report.exclusive, report.lacking) == (True, "a1", True, None)
    assert report.versions["torch"][0].isdigit()
    assert report.versions["no-such-package"] == MISSING
    assert (probe / "node7").read_text() == "a1"
    assert sorted(path.name for path in probe.iterdir()) == ["node7", NONCE]


def test_a_node_that_sees_another_folder_writes_nothing_into_it(tmp_path: Path) -> None:
    report = look_and_answer("node7", tmp_path, None, [], tmp_path / "probe")
    assert (report.there, report.nonce) == (True, None)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_entered_counts_as_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_folder = Path.is_dir

    def refuse(path: Path) -> bool:
        if path == tmp_path:
            raise PermissionError
        return is_folder(path)

    monkeypatch.setattr(Path, "is_dir", refuse)
    assert not look(tmp_path, None, [], probe=tmp_path / "probe").there


def test_the_digest_of_images_knows_table_length_and_pixels(tmp_path: Path) -> None:
    assert cohort_digest(tmp_path) is None
    (tmp_path / "cohort.json").write_text(json.dumps({"version": 1}))
    pixels = bytearray(3 * 2**20)
    digests = set()
    for place in (None, 0, 1_500_000, len(pixels) - 1):
        if place is not None:
            pixels[place] = 1
        (tmp_path / "pixels.npy").write_bytes(pixels)
        digests.add(cohort_digest(tmp_path))
    (tmp_path / "pixels.npy").write_bytes(pixels[:-1])
    digests.add(cohort_digest(tmp_path))
    (tmp_path / "cohort.json").write_text(json.dumps({"version": 2}))
    digests.add(cohort_digest(tmp_path))
    assert len(digests) == 6


def test_the_digest_of_many_images_reaches_their_end(tmp_path: Path) -> None:
    (tmp_path / "cohort.json").touch()
    digests = set()
    for last in (b"\0", b"\1"):
        with (tmp_path / "pixels.npy").open("wb") as file:
            file.seek(40 * 2**20)
            file.write(last)
        digests.add(cohort_digest(tmp_path))
    assert len(digests) == 2


def test_the_file_system_is_that_of_the_deepest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 22 0:50 / /shared rw,relatime shared:1 - nfs4 server:/export rw\n"
        "31 30 0:51 / /shared/my\\040scratch rw - tmpfs tmpfs rw\n"
    )
    assert file_system(Path("/shared/searches"), mounts=mounts) == "nfs4"
    assert file_system(Path("/shared/my scratch/a"), mounts=mounts) == "tmpfs"
    assert file_system(Path("/shared-not"), mounts=mounts) == "ext4"
    assert file_system(Path("/shared"), mounts=tmp_path / "none") == "unknown file system"
