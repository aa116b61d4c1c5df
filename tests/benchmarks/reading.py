"""Reading thousands of compressed .mha files: decoded once, on all cores, and held once for any number of trials.

Run:
    python tests/benchmarks/reading.py [--small] [--json FILE] [--count N] [--side N]

Files are written first: grey pictures of 16 bits, with zlib, in class folders with a labels.csv that names patients.
Then, each in a process of its own, whose imports are not counted and for which the files are in the page cache:

- *bare*: SimpleITK alone reads them one after the other on one core and keeps nothing; of many, a thousand.
- *one core*, *all cores*: a storage's first reading: files digested, decoded in their sandbox, written and synced.
- *again*: the next search in that storage. Files are digested, the stored pixels compared with their digests.
- *other storage*: the first search in another storage of this machine, which takes the decoded images over.

Then processes that hold what a trial holds, the memory-mapped images and a preprocessed training fold, and touch all of
it: one, and several at a time. Given is the memory of each that is its own (anonymous), and what all of them take
together (proportional set size, which counts a shared page once).
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

BARE_IMAGES = 1000
PIXELS = 64
TOGETHER = (1, 2, 4)
"""How many processes hold the images at a time."""


def write_files(folder: Path, count: int, side: int) -> int:
    """Pictures that compress as scans do, to about 60 %. Returns: their bytes."""
    import numpy as np
    import SimpleITK as sitk  # noqa: N813 - its users' name for it

    rng = np.random.default_rng(0)
    coarse = max(2, side // 8)
    lines, size = ["path,label,patient"], 0
    for index in range(count):
        label, patient = ("ill", "well")[index // 2 % 2], f"p{index // 2:05d}"
        smooth = np.kron(rng.integers(0, 400, (coarse, coarse)), np.ones((side // coarse,) * 2, dtype=np.int64))
        image = sitk.GetImageFromArray((smooth + rng.integers(0, 30, smooth.shape)).astype(np.int16))
        path = folder / label / f"{index:06d}.mha"
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(path), useCompression=True)
        size += path.stat().st_size
        lines.append(f"{path.relative_to(folder).as_posix()},{label},{patient}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return size


def _bare(folder: Path, count: int) -> dict[str, Any]:
    import numpy as np
    import SimpleITK as sitk  # noqa: N813

    files = sorted((folder / "files").rglob("*.mha"))[:BARE_IMAGES]
    start = time.perf_counter()
    for file in files:
        sitk.GetArrayFromImage(sitk.ReadImage(str(file))).astype(np.float32)
    return {"seconds": (time.perf_counter() - start) * count / len(files)}


def _reading(storage: str, *, cores: int | None = None) -> Callable[[Path, int], dict[str, Any]]:
    """A block that reads all files for a storage, on so many cores."""

    def read(folder: Path, count: int) -> dict[str, Any]:
        from trainables.data.labels import read_labels
        from trainables.data.reading import decode, table_digest

        if cores is not None:
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
        times = [time.perf_counter()]
        table = read_labels(folder / "files")
        times.append(time.perf_counter())
        table_digest(table)  # ``decode`` finds the digests of the files remembered
        times.append(time.perf_counter())
        cohort = decode(table, cache=folder / storage)
        times.append(time.perf_counter())
        return {
            "seconds": times[3] - times[0],
            "labels": times[1] - times[0],
            "digests": times[2] - times[1],
            "own_bytes": _memory()["anonymous"],
            "cohort": str(cohort.folder),
        }

    return read


def _fold(folder: Path, count: int) -> dict[str, Any]:
    """Preprocess four fifths of the images, as a trial's first stage does."""
    from spaces.config import PreprocessConfig
    from trainables.data.image_files import save_image_set
    from trainables.data.preprocess import fit_scaling, preprocess
    from trainables.data.reading import read_cohort

    cohort, config = read_cohort(folder / "files", cache=folder / "all"), PreprocessConfig(pixels=PIXELS)
    chosen = range(len(cohort) * 4 // 5)
    start = time.perf_counter()
    images = preprocess(cohort, chosen, fit_scaling(cohort, chosen, config), config)
    (folder / "fold").mkdir()
    save_image_set(folder / "fold", images)
    return {"seconds": time.perf_counter() - start, "bytes": images.images_NCHW.nbytes, "cohort": str(cohort.folder)}


def _hold(folder: Path, count: int) -> dict[str, Any]:
    """Hold and touch what a trial does until a line is read, and then until the others have measured as well."""
    from trainables.data.cohort import Cohort
    from trainables.data.image_files import load_image_set

    before = _memory()
    cohort = Cohort.load(next(path for path in (folder / "all").iterdir() if not path.name.startswith(".")))
    images = load_image_set(folder / "fold")
    touched = sum(float(cohort.pixels(index).max()) for index in range(len(cohort))) + float(images.images_NCHW.max())
    print("held", touched, flush=True)
    sys.stdin.readline()
    print(json.dumps({"before": before, "after": _memory()}), flush=True)
    sys.stdin.readline()
    return {}


def _memory() -> dict[str, int]:
    """Bytes of this process: proportional, resident, and its own."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return {name.lower(): 1024 * kilobytes[name] for name in ("Pss", "Rss", "Anonymous")}


BLOCKS: Mapping[str, Callable[[Path, int], dict[str, Any]]] = MappingProxyType(
    {
        "bare": _bare,
        "one core": _reading("one", cores=1),
        "all cores": _reading("all"),
        "again": _reading("all"),
        "other storage": _reading("other"),
        "fold": _fold,
        "hold": _hold,
    }
)
SHOWN = ("bare", "one core", "all cores", "again", "other storage")


def _command(block: str, folder: Path, count: int) -> list[str]:
    return [sys.executable, __file__, "--block", block, "--folder", str(folder), "--count", str(count)]


def _environment(folder: Path, block: str) -> dict[str, str]:
    """One that finds this project, and notes of one storage at a time: the first readings have to decode."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": paths, "GENMIX_CACHE": "" if block == "one core" else str(folder / "notes")}


def _block(block: str, folder: Path, count: int) -> dict[str, Any]:
    """One block in a process of its own. Raises: RuntimeError if it fails."""
    environment = _environment(folder, block)
    done = subprocess.run(_command(block, folder, count), capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"The block '{block}' failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _held(folder: Path, count: int, processes: int) -> dict[str, Any]:
    """The memory of so many processes at a time, each with all images in hand."""
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    _command("hold", folder, count),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=_environment(folder, "hold"),
                )
            )
            for _ in range(processes)
        ]
        for process in started:
            if not _line(process).startswith("held"):
                raise RuntimeError("a process that was to hold the images has ended")
        found = []
        for process in started:
            _go_on(process)
            found.append(json.loads(_line(process)))
        for process in started:
            process.communicate("\n")
    return {
        "processes": processes,
        "own_bytes": max(each["after"]["anonymous"] - each["before"]["anonymous"] for each in found),
        "resident_bytes": max(each["after"]["rss"] for each in found),
        "together_bytes": sum(each["after"]["pss"] for each in found),
    }


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def measure(folder: Path, count: int, side: int) -> dict[str, Any]:
    """Every figure."""
    (folder / "files").mkdir()
    size = write_files(folder / "files", count, side)
    print(f"{count} files of {side}x{side} pixels, {size / 2**20:.0f} MB", flush=True)
    found: dict[str, dict[str, Any]] = {}
    for block in SHOWN:
        found[block] = _block(block, folder, count)
        print(f"{block}: {found[block]['seconds']:.2f} s", flush=True)
    fold = _block("fold", folder, count)
    cohorts = [Path(found[block]["cohort"]) / "pixels.npy" for block in ("one core", "all cores", "other storage")]
    return {
        "count": count,
        "side": side,
        "cores": len(os.sched_getaffinity(0)),
        "file_bytes": size,
        "cohort_bytes": cohorts[0].stat().st_size,
        "fold_bytes": fold["bytes"],
        "rows": [
            {"block": block, "images_per_second": count / each["seconds"], **each} for block, each in found.items()
        ],
        "equal_bytes": all(filecmp.cmp(cohorts[0], other, shallow=False) for other in cohorts[1:]),
        "all_cores_over_one": found["one core"]["seconds"] / found["all cores"]["seconds"],
        "again_over_first": found["again"]["seconds"] / found["all cores"]["seconds"],
        "memory": [_held(folder, count, processes) for processes in TOGETHER],
    }


def report(found: Mapping[str, Any]) -> None:
    """Print the tables."""
    print(f"\n{'':14} {'seconds':>8} {'images/s':>9} {'labels':>7} {'digests':>8} {'own MB':>8}")
    for row in found["rows"]:
        parts = [f"{row[name]:.2f}" if name in row else "" for name in ("labels", "digests")]
        own = f"{row['own_bytes'] / 2**20:.0f}" if "own_bytes" in row else ""
        print(
            f"{row['block']:14} {row['seconds']:>8.2f} {row['images_per_second']:>9.0f} {parts[0]:>7} {parts[1]:>8} "
            f"{own:>8}"
        )
    print(
        f"all cores ({found['cores']}) {found['all_cores_over_one']:.2f} times as fast as one; the next start takes "
        f"{found['again_over_first']:.1%} of the first; equal bytes: {'yes' if found['equal_bytes'] else 'NO'}"
    )
    print(
        f"\nmemory: {found['cohort_bytes'] / 2**20:.0f} MB of decoded images and {found['fold_bytes'] / 2**20:.0f} MB "
        f"of preprocessed ones are mapped by each process\n{'processes':>9} {'own MB, each':>13} {'together MB':>12}"
    )
    for row in found["memory"]:
        print(f"{row['processes']:>9} {row['own_bytes'] / 2**20:>13.1f} {row['together_bytes'] / 2**20:>12.0f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks/reading.py", description=str(__doc__).split("\n")[0])
    parser.add_argument("--small", action="store_true", help="600 files of 128 pixels in place of 10,000 of 256")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    parser.add_argument("--count", type=int, metavar="N", help="how many files (10000; small: 600)")
    parser.add_argument("--side", type=int, metavar="N", help="their sides, a multiple of 8 (256; small: 128)")
    parser.add_argument("--block", choices=BLOCKS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    count = options.count or (600 if options.small else 10_000)
    if options.block:
        print(json.dumps(BLOCKS[options.block](options.folder, count)))
        return
    with tempfile.TemporaryDirectory(prefix="genmix-reading-") as folder:
        found = measure(Path(folder), count, options.side or (128 if options.small else 256))
    report(found)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
