"""Each check of the doctor says what is wrong, and one that fails itself does not stop the next."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from search import doctor_machine, doctor_storage
from search.doctor import DoctorWish, checks_for, doctor, examine
from search.doctor_finding import Finding, fine, wary, wrong
from search.doctor_flags import doctor_parser
from search.doctor_machine import foreign_modules, memory_limit, quota, unmet
from search.doctor_services import gpus, images, torchvision, tracking
from search.doctor_storage import file_system, is_network, kind_of_storage, room, shared_memory, storage_works
from search.settings import SettingsError
from spaces.budget import budget_named
from spaces.errors import ConfigError
from trainables.data.source import Source

ROOT = Path(__file__).resolve().parents[2]
QUICK = budget_named("quick")


def examined(**checks: Any) -> tuple[int, list[str]]:
    text = io.StringIO()
    code = examine(checks, Console(file=text, width=200, highlight=False, markup=False), patience=0.3)
    return code, text.getvalue().splitlines()


def test_a_warning_leaves_the_exit_code_at_0_and_a_failure_makes_it_1() -> None:
    assert examined(a=lambda: fine("well"), b=lambda: wary("look"))[0] == 0
    code, lines = examined(a=lambda: wrong("no"), longer=lambda: fine("well"))
    assert code == 1
    assert lines == ["fail  a       no", "ok    longer  well", "2 checks: 1 ok, 0 to know, 1 in the way."]


def test_a_check_that_breaks_or_hangs_is_a_line_and_the_next_is_made() -> None:
    def broken() -> Finding:
        raise ZeroDivisionError("division\nby zero")

    def late() -> Finding:
        raise TimeoutError

    def slow() -> Finding:
        time.sleep(30)
        return fine("at last")

    code, lines = examined(broken=broken, late=late, slow=slow, next=lambda: fine("well"))
    assert code == 1
    assert lines[0].endswith("ZeroDivisionError: division by zero")
    assert lines[1].endswith("TimeoutError")
    assert "no answer within" in lines[2]
    assert lines[3].startswith("ok")


def test_packages_that_are_missing_or_of_another_version_are_named() -> None:
    declared = ["numpy>=2.0", "ray[tune]>=2.50,<3", "scikit_learn>=1.6", "gone>=1", "other; extra == 'test'"]
    installed = {"numpy": "2.1", "ray": "3.1", "scikit-learn": "1.7rc1"}
    assert unmet(declared, installed) == ["ray is 3.1, expected <3,>=2.50", "gone is not installed"]
    assert unmet(["a b c"], {}) == ["'a b c' is no requirement"]


def test_the_environment_of_the_tests_is_complete() -> None:
    assert doctor_machine.python().state == "ok"
    found = doctor_machine.packages()
    assert found.state == "ok", found.text


def test_a_foreign_package_of_the_same_name_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert foreign_modules(ROOT) == []
    assert len(foreign_modules(tmp_path)) == 4

    class Distribution:
        name = "spaces"
        version = "0.30"

    real = list(metadata.distributions())
    monkeypatch.setattr(metadata, "distributions", lambda: [*real, Distribution()])
    found = doctor_machine.packages()
    assert (found.state, "pip uninstall spaces" in found.text) == ("warn", True)


def test_a_container_that_limits_cores_and_memory_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert quota("150000 100000\n") == 1.5
    assert quota("max 100000") is None
    assert quota("") is None
    assert memory_limit("MemTotal:       1000 kB\nMemFree: 10 kB\n", "max\n") == 1_024_000
    assert memory_limit("MemTotal:       1000 kB\n", "500000") == 500_000
    assert memory_limit("", "") is None
    monkeypatch.setattr(doctor_machine.os, "sched_getaffinity", lambda _: set(range(64)))
    files = {"/sys/fs/cgroup/cpu.max": "400000 100000", "/proc/meminfo": "MemTotal: 64000000 kB"}
    monkeypatch.setattr(doctor_machine, "_read", lambda path: files.get(path, ""))
    found = doctor_machine.processors()
    assert (found.state, "--concurrency 4" in found.text) == ("warn", True)
    files |= {"/sys/fs/cgroup/cpu.max": "max 100000", "/sys/fs/cgroup/memory.max": "2000000000"}
    found = doctor_machine.processors()
    assert (found.state, "2.0 GB of memory, which is little" in found.text) == ("warn", True)
    files |= {"/sys/fs/cgroup/memory.max": "max"}
    assert doctor_machine.processors().state == "ok"


def test_a_storage_that_cannot_hold_searches_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage_works(tmp_path).state == "ok"
    found = storage_works(tmp_path / "not" / "there")
    assert (found.state, "will be created" in found.text) == ("ok", True)
    assert not (tmp_path / "not").exists()
    monkeypatch.setattr(doctor_storage, "probe_storage", lambda folder: "no atomic rename")
    found = storage_works(tmp_path)
    assert found == wrong(f"{tmp_path} cannot hold searches (no atomic rename); name another folder with --storage")


MOUNTS = """\
overlay / overlay rw 0 0
server:/export /mnt/shared\\040data nfs4 rw 0 0
s3 /mnt/bucket fuse.s3fs rw 0 0
tmpfs /mnt/memory tmpfs rw 0 0
/dev/sda1 /mnt ext4 rw 0 0
"""


def test_the_kind_of_file_system_is_that_of_the_deepest_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    assert file_system(Path("/mnt/shared data/searches"), MOUNTS) == ("nfs4", "/mnt/shared data")
    assert file_system(Path("/mnt/sharedless"), MOUNTS) == ("ext4", "/mnt")
    assert file_system(Path("/home"), MOUNTS) == ("overlay", "/")
    assert file_system(Path("/home"), "") == ("unknown", "/")
    assert [is_network(kind) for kind in ("nfs4", "fuse.s3fs", "ext4")] == [True, True, False]
    monkeypatch.setattr(doctor_storage, "_mounts", lambda: MOUNTS)
    monkeypatch.setattr(doctor_storage, "existing", lambda folder: folder)
    states = {path: kind_of_storage(Path(path)).state for path in ("/mnt/memory/s", "/mnt/s", "/mnt/bucket/s", "/s")}
    assert states == {"/mnt/memory/s": "warn", "/mnt/s": "ok", "/mnt/bucket/s": "ok", "/s": "warn"}


def test_little_room_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 6e9})()
    monkeypatch.setattr(doctor_storage.shutil, "disk_usage", lambda _: usage)
    assert room(tmp_path, budget_named("quick")).state == "ok"
    found = room(tmp_path / "none", budget_named("paper"))
    assert (found.state, "--stage-limit 3GB" in found.text) == ("warn", True)
    usage.free = 64 * 2**20
    assert "--shm-size" in shared_memory().text
    assert shared_memory(tmp_path / "none").state == "warn"


def test_a_driver_without_a_working_pytorch_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    services, torch = import_module("search.doctor_services"), import_module("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(services, "_DRIVER", tmp_path / "none")
    assert gpus().state == "ok"
    (tmp_path / "version").write_text("NVRM")
    monkeypatch.setattr(services, "_DRIVER", tmp_path / "version")
    assert gpus().state == "fail"


def test_a_broken_torchvision_fails_and_none_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    services = import_module("search.doctor_services")

    def missing(_: str) -> str:
        raise metadata.PackageNotFoundError

    def broken(_: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(services.metadata, "version", missing)
    assert torchvision().state == "ok"
    monkeypatch.setattr(services.metadata, "version", lambda _: "0.20")
    monkeypatch.setattr(services.importlib, "import_module", broken)
    found = torchvision()
    assert (found.state, "pip uninstall torchvision" in found.text) == ("fail", True)


def test_a_tracking_address_that_cannot_be_used_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking(f"sqlite:///{tmp_path}/mlflow.db") == fine(f"{tmp_path}/mlflow.db will be created")
    assert not list(tmp_path.iterdir())
    assert tracking(f"sqlite:///{tmp_path}/none/mlflow.db").state == "fail"
    assert "cannot be reached" in tracking("http://127.0.0.1:9").text
    for uri in ("me:secret@host/db", "me:sec/ret@host/db", "host/db?user=me&password=secret"):
        assert "PGPASSWORD" in tracking(f"postgresql://{uri}").text
    assert "cannot be read" in tracking("http://[::1").text
    services = import_module("search.doctor_services")
    monkeypatch.setattr(services, "network_of", lambda _: "nfs4")
    assert tracking(f"sqlite:///{tmp_path}/mlflow.db").state == "warn"
    monkeypatch.setattr(services, "check_server", lambda _: None)
    (tmp_path / "mlflow.db").touch()
    assert tracking(f"sqlite:///{tmp_path}/mlflow.db").state == "warn"
    monkeypatch.setattr(services, "network_of", lambda _: None)
    assert tracking(f"sqlite:///{tmp_path}/mlflow.db").state == "ok"


@pytest.mark.parametrize(("count", "said"), [(1, "1 thing leaves"), (3, "3 things leave")])
def test_models_that_are_missing_are_counted(count: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    services = import_module("search.doctor_services")
    monkeypatch.setattr(services, "leave_missing", lambda *_, **__: (None, ["Left out of the space: x"] * count))
    assert services.pretrained(QUICK) == wary(f"{said} the space genmix, the first: x")


def read(folder: Path, *, folds: int = 3, **how: Any) -> Finding:
    return images(Source(data=str(folder), **how), folds=folds)


def write_images(folder: Path, *, patients: bool = True) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    rows = ["path,label" + ",patient" * patients]
    for index in range(8):
        Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)).save(folder / f"{index}.png")
        rows.append(f"{index}.png,{'ab'[index % 2]}" + f",p{index}" * patients)
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_images_are_read_and_counted_and_nothing_is_left(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "data")
    before = sorted(tmp_path.rglob("*"))
    assert read(folder) == fine("8 images (a 4, b 4), 8 patients, sensitivity that of 'b' (--positive chooses)")
    assert sorted(tmp_path.rglob("*")) == before
    found = read(write_images(tmp_path / "other", patients=False))
    assert (found.state, "add a column 'patient'" in found.text) == ("warn", True)


def test_images_that_a_search_would_refuse_are_in_the_way(tmp_path: Path) -> None:
    assert read(tmp_path / "none").state == "fail"
    folder = write_images(tmp_path / "data")
    (folder / "3.png").write_bytes(b"no image")
    found = read(folder)
    assert (found.state, "1 cannot be read, 3.png the first" in found.text) == ("fail", True)
    assert "--skip-bad-images" in found.text
    found = read(folder, skip_bad_images=True)
    assert (found.state, "1 left out, 3.png the first" in found.text) == ("warn", True)


def test_nearly_equal_images_of_two_patients_are_to_know(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "data")
    pixels = np.asarray(Image.open(folder / "1.png"))
    Image.fromarray(np.minimum(pixels, 250) + np.uint8(5)).save(folder / "3.png")
    found = read(folder)
    assert (found.state, "1 pair of different patients nearly equal, 1.png and 3.png" in found.text) == ("warn", True)


def test_a_class_with_fewer_patients_than_the_folds_of_the_budget_is_in_the_way(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "data")
    assert read(folder).state == "ok"
    found = read(folder, folds=5)
    assert (found.state, "label 'a' has 4 patients, fewer than the 5 folds" in found.text) == ("fail", True)
    table = (folder / "labels.csv").read_text()
    (folder / "labels.csv").write_text(table.replace(",p3", ",p1").replace(",p5", ",p1").replace(",p7", ",p1"))
    found = read(folder)
    assert (found.state, "label 'b' has 1 patient, fewer than the 3 folds" in found.text) == ("fail", True)


def test_volumes_that_a_search_must_be_told_how_to_read_are_to_know(tmp_path: Path) -> None:
    import SimpleITK

    folder = write_images(tmp_path / "data")
    volume = np.random.default_rng(1).integers(0, 255, (3, 32, 32)).astype(np.uint8)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(volume), str(folder / "2.mha"))
    (folder / "labels.csv").write_text((folder / "labels.csv").read_text().replace("2.png", "2.mha"))
    found = read(folder)
    assert (found.state, "1 volume, 2.mha the first: give --slice middle" in found.text) == ("warn", True)
    assert read(folder, slice_rule="middle").state == "ok"
    assert "2.mha" in read(folder, slice_rule=7).text


def test_of_many_images_a_sample_of_each_class_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("search.doctor_services"), "_MOST_IMAGES", 4)
    found = read(write_images(tmp_path / "data"))
    assert found.state == "ok", "a sample has as many patients of each class as there are folds"
    assert found.text.startswith("8 images (a 4, b 4), 8 patients")
    assert found.text.endswith("; 6 of them were read")


def test_a_cluster_that_does_not_answer_fails(tmp_path: Path) -> None:
    cluster = import_module("search.doctor_services").cluster
    found = cluster("127.0.0.1:9", tmp_path)
    assert (found.state, "does not answer" in found.text) == ("fail", True)


def test_data_and_cluster_are_checked_where_they_are_named(tmp_path: Path) -> None:
    wish = DoctorWish(
        storage=tmp_path, tracking_uri="sqlite:///mlflow.db", address="auto", data=Source(data=str(tmp_path))
    )
    assert {"data", "Ray"} <= set(checks_for(wish, budget_named("quick")))
    plain = checks_for(DoctorWish(storage=tmp_path, tracking_uri="sqlite:///mlflow.db"), budget_named("quick"))
    assert "data" not in plain
    assert plain["Ray"]().state == "ok"
    with pytest.raises(ConfigError, match="quick"):
        doctor(DoctorWish(storage=tmp_path, tracking_uri="sqlite:///mlflow.db", budget="qick"))


def test_flags_are_read_and_wrong_ones_refused() -> None:
    given = doctor_parser().parse_args(["--budget", "paper", "--storage", "/x"])
    assert (given.budget, given.storage, given.data, given.address) == ("paper", Path("/x"), None, None)
    with pytest.raises(SettingsError, match="--storage"):
        doctor_parser().parse_args(["--storag", "/x"])


def test_the_first_lines_need_no_heavy_library() -> None:
    code = "import sys, search.doctor; print(sorted({'torch', 'ray', 'mlflow', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
