"""Which images a data set has and how they are labelled: class folders, a CSV table or a MedMNIST archive."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from spaces.errors import nearest
from trainables.data.readers import EXTENSIONS, SPLITS, format_of, read_npz_labels
from trainables.errors import DataError

Box: TypeAlias = tuple[int, int, int, int]
"""A region of interest in pixels of the stored image: x, y of the upper left corner, width, height."""

LABELS_FILE = "labels.csv"
REQUIRED_COLUMNS = ("path", "label")
COLUMNS = (*REQUIRED_COLUMNS, "patient", "site", "split", "mask", "roi")
MAX_TABLE_BYTES = 100 * 2**20

NEGATIVE_NAMES = frozenset(
    {"0", "normal", "n", "healthy", "negative", "neg", "benign", "control", "controls", "no", "false", "absent"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """One row of the table.

    Args:
        id: the image's path relative to the data folder in POSIX form, or its name in the archive, "train/000012".
        path: the file; None for an entry of an archive.
        label: class name.
        patient: patient name; the id where patients are not known.
        site: where the image was made, "" if unknown.
        split: "train", "val", "test", or "" where no fixed split is given.
        roi: region of interest.
        mask: a file whose bounding box is the region of interest; never together with ``roi``.
    """

    id: str
    path: Path | None
    label: str
    patient: str
    site: str = ""
    split: str = ""
    roi: Box | None = None
    mask: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTable:
    """Every labelled image of a data set, sorted by id.

    Args:
        data: the folder or archive, as it was given.
        source: where the labels came from, to be put into sentences: "labels.csv of data/fll".
        rows: the images.
        patients_known: False where every image counts as a patient of its own.
        is_whole: False where images were left out, such as those of a locked test set.
    """

    data: Path
    source: str
    rows: tuple[LabelledImage, ...]
    patients_known: bool
    is_whole: bool = True

    def part(self, ids: Collection[str], *, inside: bool) -> LabelTable:
        """The rows whose ids are among ``ids``, or those whose ids are not."""
        return replace(self, rows=tuple(row for row in self.rows if (row.id in ids) == inside), is_whole=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, sorted."""
        return tuple(sorted({row.label for row in self.rows}))


def read_labels(data: Path, labels: Path | str | None = None) -> LabelTable:
    """Find the images of a data set and their labels.

    Args:
        data: a folder with a labels.csv, a folder of class folders, or a MedMNIST .npz.
        labels: another table instead of labels.csv: the name of a CSV inside ``data``, or a path. Columns
            ``path,label[,patient][,site][,split][,mask][,roi]``, paths relative to ``data``, a roi as "x,y,w,h"
            (quoted) or x;y;w;h in pixels.

    Returns:
        The table; nothing is decoded yet.

    Raises:
        DataError: names the file or flag, what was found, what was expected and what to do.
    """
    data = Path(data)
    if not data.exists():
        raise DataError(f"--data '{data}' does not exist; give a folder of images or a MedMNIST .npz file.")
    if data.is_file():
        table = _archive_table(data, labels)
    elif labels is not None or (data / LABELS_FILE).is_file():
        table = _csv_table(data, labels)
    else:
        table = _folder_table(data)
    check_classes(table.classes, table.source)
    return table


def check_classes(classes: Sequence[str], source: str) -> None:
    """Raises: DataError if there are fewer than two classes."""
    if len(classes) < 2:
        named = f"one class, '{classes[0]}'" if classes else "no class"
        raise DataError(f"the data set has {named} ({source}); expected at least two. Add images of another class.")


def positive_class(classes: Sequence[str]) -> int:
    """Which of two classes is the positive one, whose sensitivity and precision are meant.

    A name is negative that, without regard to case, is one of ``NEGATIVE_NAMES``, or begins with "no" or "non"
    followed by a space, underscore or hyphen ("no_findings", "non-diseased"). If exactly one of the two names is
    negative, the other is positive; otherwise the alphabetically last is.

    Args:
        classes: two class names.

    Returns:
        The index of the positive class in ``classes``.

    Raises:
        ValueError: not exactly two classes.
    """
    if len(classes) != 2:
        raise ValueError(f"a positive class exists among two classes; got {len(classes)}: {list(classes)}.")
    negative = [_is_negative(name) for name in classes]
    if negative[0] != negative[1]:
        return negative.index(False)
    return max((0, 1), key=lambda index: classes[index])


def _is_negative(name: str) -> bool:
    plain = name.strip().lower()
    return plain in NEGATIVE_NAMES or re.match(r"non?[ _-]|nofinding|nondiseased", plain) is not None


def _archive_table(data: Path, labels: Path | str | None) -> LabelTable:
    if data.suffix.lower() != ".npz":
        raise DataError(f"--data '{data}' is a file but no .npz; give the folder that holds the images.")
    if labels is not None:
        raise DataError(f"--labels '{labels}' was given for '{data}', which brings its own labels; leave it out.")
    rows = [
        LabelledImage(id=f"{split}/{index:06d}", path=None, label=label, patient=f"{split}/{index:06d}", split=split)
        for split, names in read_npz_labels(data).items()
        for index, label in enumerate(names)
    ]
    if not rows:
        raise DataError(f"'{data}' has no images; download it again.")
    return LabelTable(data=data, source=f"labels of {data}", rows=_sorted(rows), patients_known=False)


def _folder_table(data: Path) -> LabelTable:
    """Every image below a class folder; files and folders whose names begin with a dot are passed over."""
    root = data.resolve()
    rows: list[LabelledImage] = []
    for folder in sorted(each for each in data.iterdir() if each.is_dir() and not each.name.startswith(".")):
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(data)
            if any(part.startswith(".") for part in inside.parts) or format_of(path) is None or not path.is_file():
                continue
            if not path.resolve().is_relative_to(root):
                raise DataError(
                    f"'{path}' is a link that leaves the data folder '{data}'; expected every image inside. "
                    f"Copy the file into the folder."
                )
            name = inside.as_posix()
            rows.append(LabelledImage(id=name, path=path.resolve(), label=folder.name, patient=name))
    if not rows:
        raise DataError(
            f"--data '{data}' has no images in class folders and no {LABELS_FILE}; expected CLASS/FILE with names in "
            f"{', '.join(EXTENSIONS)}, or a table with the columns {', '.join(REQUIRED_COLUMNS)}."
        )
    _check_repeats(rows, f"class folders of {data}")
    return LabelTable(data=data, source=f"class folders of {data}", rows=_sorted(rows), patients_known=False)


def _csv_table(data: Path, labels: Path | str | None) -> LabelTable:
    file, source = _find_table(data, labels)
    if file.stat().st_size > MAX_TABLE_BYTES:
        raise DataError(f"{source} is {file.stat().st_size} bytes; expected at most {MAX_TABLE_BYTES}.")
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            lines = [(number, cells) for number, cells in _numbered(csv.reader(stream, strict=True)) if any(cells)]
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source} is no UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from None
    except csv.Error as error:
        raise DataError(f"{source} is no comma-separated table ({error}); check its quotes.") from None
    header = [name.strip() for name in lines[0][1]] if lines else []
    _check_header(header, source)
    reader = _Rows(data=data, source=source, root=data.resolve(), header=tuple(header))
    rows = [reader.row(number, cells) for number, cells in lines[1:]]
    if not rows:
        raise DataError(f"{source} has no rows below its header; list one image a line.")
    missing = [(number, row.path) for (number, _), row in zip(lines[1:], rows, strict=True) if not _exists(row.path)]
    if missing:
        number, path = missing[0]
        raise DataError(
            f"{len(missing)} of {len(rows)} paths do not exist, the first '{_inside(path, reader.root)}' in line "
            f"{number} ({source}); expected paths relative to '{data}'. Correct the table or copy the files."
        )
    _check_repeats(rows, source)
    return LabelTable(data=data, source=source, rows=_sorted(rows), patients_known="patient" in header)


def _numbered(reader: object) -> list[tuple[int, list[str]]]:
    """Rows with the number of the line that they end on."""
    return [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]  # type: ignore[attr-defined]


def _find_table(data: Path, labels: Path | str | None) -> tuple[Path, str]:
    """The table's file and how sentences call it."""
    if labels is None:
        return data / LABELS_FILE, f"{LABELS_FILE} of {data}"
    if (data / labels).is_file():
        return data / labels, f"{labels} of {data}" if not Path(labels).is_absolute() else str(labels)
    if Path(labels).is_file():
        return Path(labels), str(labels)
    tables = sorted(path.name for path in data.glob("*.csv"))
    hint = nearest(str(labels), tables) if tables else f"'{data}' holds no .csv file"
    raise DataError(f"--labels '{labels}' is neither a file in '{data}' nor a path; {hint}.")


def _check_header(header: Sequence[str], source: str) -> None:
    for name in header:
        if name not in COLUMNS:
            raise DataError(f"{source} has the unknown column '{name}'; {nearest(name, COLUMNS)} (comma-separated).")
        if header.count(name) > 1:
            raise DataError(f"{source} has the column '{name}' {header.count(name)} times; keep one.")
    for name in REQUIRED_COLUMNS:
        if name not in header:
            raise DataError(
                f"{source} has no column '{name}'; found {', '.join(header) or 'nothing'}, expected at least "
                f"{', '.join(REQUIRED_COLUMNS)} in its first line."
            )


def _check_repeats(rows: Sequence[LabelledImage], source: str) -> None:
    """The same file twice is a mistake in the table, whether its labels agree or not."""
    seen: dict[Path | None, LabelledImage] = {}
    for row in rows:
        first = seen.setdefault(row.path, row)
        if first is row:
            continue
        if first.label != row.label:
            raise DataError(
                f"'{row.id}' appears twice with two labels, '{first.label}' and '{row.label}' ({source}); "
                f"expected one label an image. Remove the wrong row."
            )
        count = Counter(each.path for each in rows)[row.path]
        raise DataError(f"'{row.id}' appears {count} times ({source}); expected once. Remove the repeated rows.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Turns cells into rows of the table and names the line where it cannot."""

    data: Path
    source: str
    root: Path
    header: tuple[str, ...]

    def row(self, number: int, cells: Sequence[str]) -> LabelledImage:
        where = f"line {number} of {self.source}"
        if len(cells) != len(self.header):
            raise DataError(
                f"{where} has {len(cells)} cells; expected {len(self.header)} ({','.join(self.header)}). "
                f"Quote cells that contain a comma."
            )
        named = dict(zip(self.header, cells, strict=True))
        for name in ("path", "label", "patient"):
            if named.get(name) == "":
                raise DataError(f"{where} has an empty {name}; fill it in{_or_drop(name)}.")
        path = self._file(named["path"], where)
        name = path.relative_to(self.root).as_posix()
        mask = self._file(named["mask"], where) if named.get("mask") else None
        roi = _box(named["roi"], where) if named.get("roi") else None
        if mask is not None and not mask.is_file():
            raise DataError(f"{where}: the mask '{named['mask']}' does not exist; correct the path.")
        if mask is not None and roi is not None:
            raise DataError(f"{where} has a mask and a roi; expected one of them. Empty one cell.")
        return LabelledImage(
            id=name,
            path=path,
            label=named["label"],
            patient=named.get("patient", name),
            site=named.get("site", ""),
            split=split_named(named.get("split", ""), where),
            roi=roi,
            mask=mask,
        )

    def _file(self, given: str, where: str) -> Path:
        """The resolved file of a cell: inside the data folder, of a format that can be read."""
        path = (self.root / given).resolve()
        if PurePosixPath(given).is_absolute() or not path.is_relative_to(self.root):
            raise DataError(
                f"{where}: '{given}' leaves the data folder; expected a path relative to '{self.data}' and inside it. "
                f"Copy the file into the folder."
            )
        if format_of(path) is None:
            raise DataError(f"{where}: '{given}' is no supported image; expected {', '.join(EXTENSIONS)}.")
        return path


def _or_drop(name: str) -> str:
    return "" if name in REQUIRED_COLUMNS else f", or drop the column {name}"


def _exists(path: Path | None) -> bool:
    return path is not None and path.is_file()


def _inside(path: Path | None, root: Path) -> str:
    return path.relative_to(root).as_posix() if path is not None else ""


def _box(given: str, where: str) -> Box:
    numbers = re.fullmatch(r"(\d+)[,;](\d+)[,;](\d+)[,;](\d+)", given.replace(" ", ""))
    x, y, width, height = map(int, numbers.groups()) if numbers else (0, 0, 0, 0)
    if not (width and height):
        raise DataError(
            f"{where} has the roi '{given}'; expected x,y,w,h in whole pixels, w and h at least 1 (quoted), or x;y;w;h."
        )
    return x, y, width, height


def split_named(given: str, where: str) -> str:
    """The part "train", "val" or "test" that a cell names, or "". Raises: DataError on other words."""
    split = {"validation": "val", "valid": "val"}.get(given.lower(), given.lower())
    if split and split not in SPLITS:
        raise DataError(f"{where} has the split '{given}'; {nearest(split, SPLITS)}.")
    return split


def _sorted(rows: Sequence[LabelledImage]) -> tuple[LabelledImage, ...]:
    return tuple(sorted(rows, key=lambda row: row.id))
