"""Which images a data set has and how they are labelled: class folders, a CSV table or a MedMNIST archive."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from spaces.errors import nearest
from trainables.data.archives import SPLITS, labels_apart
from trainables.data.columns import COLUMNS, REQUIRED_COLUMNS, SYNTHETIC_COLUMN, check_header, passed_over
from trainables.data.folder_layout import PARTS, check_layout
from trainables.data.paths import exists, is_folder, listed, resolved
from trainables.data.readers import EXTENSIONS, format_of
from trainables.data.spellings import check_labels, check_patients
from trainables.data.tables import MAX_LINES, Row, check_cell, read_table
from trainables.data.untrusted import quoted, why_not_regular
from trainables.errors import DataError

Box: TypeAlias = tuple[int, int, int, int]
"""A region of interest in pixels of the stored image: x, y of the upper left corner, width, height."""

LABELS_FILE = "labels.csv"
_CLASS_FOLDERS = "class folders of"
SYNTHETIC = SYNTHETIC_COLUMN
"""It marks synthetic images with ``SYNTHETIC_YES``."""
SYNTHETIC_YES = "yes"


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
        is_synthetic: whether a generative model computed it.
    """

    id: str
    path: Path | None
    label: str
    patient: str
    site: str = ""
    split: str = ""
    roi: Box | None = None
    mask: Path | None = None
    is_synthetic: bool = False


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
            ``path,label[,patient][,site][,split][,mask][,roi][,synthetic]``, paths relative to ``data``, a roi as
            "x,y,w,h" (quoted) or x;y;w;h in pixels, synthetic "yes" where a generative model computed the image.
            Other columns are not read, and named in ``source``.

    Returns:
        The table; nothing is decoded yet.

    Raises:
        DataError: names the file or flag, what was found, what was expected and what to do.
    """
    table = find_images(data, labels)
    check_labels(table.classes, table.source)
    if table.patients_known:
        check_patients((row.patient for row in table.rows), table.source)
    check_classes(
        table.classes, table.source, advice=_where_the_classes_may_be(table) if len(table.classes) < 2 else ""
    )
    return table


def find_images(data: Path, labels: Path | str | None = None) -> LabelTable:
    """``read_labels``, of any number of classes."""
    data = Path(data)
    reason = why_not_regular(data)
    if reason is not None and reason != "is a folder":
        raise DataError(f"--data {quoted(str(data))} {reason}; give a folder of images or a MedMNIST .npz file.")
    check_cell(str(data), "path", "--data")
    if reason is None:
        return _archive_table(data, labels)
    if labels is not None or os.path.lexists(data / LABELS_FILE):
        return _csv_table(data, labels)
    return _folder_table(data)


def check_classes(classes: Sequence[str], source: str, *, advice: str = "") -> None:
    """Raises: DataError if there are fewer than two classes; it ends in the advice, if there is any."""
    if len(classes) < 2:
        named = f"one class, '{classes[0]}'" if classes else "no class"
        raise DataError(
            f"the data set has {named} ({source}); expected at least two. {advice or 'Add images of another class.'}"
        )


def _where_the_classes_may_be(table: LabelTable) -> str:
    """What may be done where there is one class folder: there may be a table beside it, or classes inside it."""
    if not table.source.startswith(_CLASS_FOLDERS):
        return ""
    tables, top = _tables(table.data), table.classes[0]
    advice = [f"Name the table of the labels (found {_first_of(tables)}) with --labels"] if tables else []
    if len({row.id.split("/")[1] for row in table.rows if row.id.count("/") > 1}) > 1:
        advice.append(f"Give --data {quoted(str(table.data / top))} if its folders are the classes")
    return "; or ".join((*advice, "Add a folder of another class")) + "."


def _archive_table(data: Path, labels: Path | str | None) -> LabelTable:
    if data.suffix.lower() != ".npz":
        raise DataError(f"--data '{data}' is a file but no .npz; give the folder that holds the images.")
    if labels is not None:
        raise DataError(f"--labels '{labels}' was given for '{data}', which brings its own labels; leave it out.")
    for names in (found := labels_apart(data)).values():
        for name in set(names):
            check_cell(name, "label", f"'{data}'")
    rows = [
        LabelledImage(id=f"{split}/{index:06d}", path=None, label=label, patient=f"{split}/{index:06d}", split=split)
        for split, names in found.items()
        for index, label in enumerate(names)
    ]
    if not rows:
        raise DataError(f"'{data}' has no images; download it again.")
    return LabelTable(data=data, source=f"labels of {data}", rows=_sorted(rows), patients_known=False)


def _folder_table(data: Path) -> LabelTable:
    """Every image below a class folder; files and folders whose names begin with a dot are passed over."""
    root = resolved(data, "--data")
    source = f"{_CLASS_FOLDERS} {data}"
    rows: list[LabelledImage] = []
    for folder in sorted(each for each in listed(data) if is_folder(each) and not each.name.startswith(".")):
        for path in files_below(folder):
            if format_of(path) is None:
                continue
            name = path.relative_to(data).as_posix()
            for text, column in ((name, "path"), (folder.name, "label")):
                check_cell(text, column, f"a file in the {source}")
            if len(rows) == MAX_LINES:
                raise DataError(f"--data '{data}' has more than {MAX_LINES} images; expected at most so many.")
            inside = resolved(path, quoted(str(path)))
            if not inside.is_relative_to(root):
                raise DataError(
                    f"'{path}' is a link that leaves the data folder '{data}'; expected every image inside. "
                    f"Copy the file into the folder."
                )
            rows.append(LabelledImage(id=name, path=inside, label=folder.name, patient=name))
    if not rows:
        raise DataError(
            f"--data '{data}' has no images in class folders and no {LABELS_FILE}; expected CLASS/FILE with names in "
            f"{', '.join(EXTENSIONS)}, or a table with the columns {', '.join(REQUIRED_COLUMNS)}"
            + (f": name it with --labels (found {_first_of(tables)})." if (tables := _tables(data)) else ".")
        )
    check_layout([row.id for row in rows], str(data))
    _check_repeats(rows, source)
    return LabelTable(data=data, source=source, rows=_sorted(rows), patients_known=False)


def files_below(folder: Path) -> Iterator[Path]:
    """Whatever is no folder below a folder, in any depth; links to folders below it are not followed."""
    folders = [folder]
    while folders:
        for path in sorted(listed(folders.pop())):
            if path.name.startswith("."):
                continue
            if not is_folder(path):
                yield path
            elif not path.is_symlink():
                folders.append(path)


def _csv_table(data: Path, labels: Path | str | None) -> LabelTable:
    file, name, place = _find_table(data, labels)
    source = f"{name}{place}"
    lines = read_table(file, source)
    header = lines[0].cells if lines else ()
    ignored = check_header(header, source)
    reader = _Rows(data=data, source=source, root=resolved(data, "--data"), header=header)
    rows = [reader.row(line) for line in lines[1:]]
    if not rows:
        raise DataError(f"{source} has no rows below its header; list one image a line.")
    missing = [(line.line, row.path) for line, row in zip(lines[1:], rows, strict=True) if not exists(row.path)]
    if missing:
        number, path = missing[0]
        first = f"the first '{_inside(path, reader.root)}' in line {number}"
        lack = "does not exist" if len(missing) == 1 else "do not exist"
        raise DataError(
            f"{len(missing)} of {len(rows)} paths {lack}, {first} ({source}); "
            f"expected paths relative to '{data}'. {_how_to_find(path)}."
        )
    _check_repeats(rows, source)
    source = f"{name}{passed_over(ignored)}{place}{_synthetic_in_words(rows)}"
    return LabelTable(data=data, source=source, rows=_sorted(rows), patients_known="patient" in header)


def _synthetic_in_words(rows: Sequence[LabelledImage]) -> str:
    """What is added wherever the data are named."""
    count = sum(row.is_synthetic for row in rows)
    if not count:
        return ""
    return ", all images synthetic" if count == len(rows) else f", {count} of {len(rows)} images synthetic"


def _how_to_find(path: Path | None) -> str:
    """What to do about a path that does not exist."""
    if path is not None and "\\" in str(path) and exists(Path(str(path).replace("\\", "/"))):
        return "Write its folders with / instead of \\"
    return "Correct the table or copy the files"


def _find_table(data: Path, labels: Path | str | None) -> tuple[Path, str, str]:
    """The table's file, how sentences call it, and what they add to say where it lies."""
    if labels is None:
        return data / LABELS_FILE, LABELS_FILE, f" of {data}"
    check_cell(str(labels), "path", "--labels")
    if why_not_regular(data / labels) is None:
        return data / labels, str(labels), "" if Path(labels).is_absolute() else f" of {data}"
    if why_not_regular(Path(labels)) is None:
        return Path(labels), str(labels), ""
    tables = _tables(data)
    hint = nearest(str(labels), tables) if tables else f"'{data}' holds no .csv file"
    raise DataError(f"--labels '{labels}' is neither a file in '{data}' nor a path; {hint}.")


def _tables(data: Path) -> list[str]:
    """The names of the tables in a folder."""
    return sorted(path.name for path in listed(data) if path.name.endswith(".csv") and path.name.isprintable())


def _first_of(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names[:3])) + f" and {len(names) - 3} more" * (len(names) > 3)


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

    def row(self, line: Row) -> LabelledImage:
        where, cells = f"line {line.line} of {self.source}", line.cells
        if len(cells) != len(self.header):
            raise DataError(
                f"{where} has {len(cells)} cells; expected {len(self.header)} ({quoted(','.join(self.header))[1:-1]}). "
                f"Quote cells that contain a comma."
            )
        named = {name: cell for name, cell in zip(self.header, cells, strict=True) if name in COLUMNS}
        for name, cell in named.items():
            check_cell(cell, name, where)
        for name in ("path", "label", "patient"):
            if named.get(name) == "":
                raise DataError(f"{where} has an empty {name}; fill it in{_or_drop(name)}.")
        path = self._file(named["path"], where)
        name = path.relative_to(self.root).as_posix()
        mask = self._file(named["mask"], where) if named.get("mask") else None
        roi = _box(named["roi"], where) if named.get("roi") else None
        if mask is not None and not exists(mask):
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
            is_synthetic=_is_synthetic(named.get(SYNTHETIC, ""), where),
        )

    def _file(self, given: str, where: str) -> Path:
        """The resolved file of a cell: inside the data folder, of a format that can be read."""
        path = resolved(self.root / given, f"{where}: '{given}'")
        if not path.is_relative_to(self.root):
            raise DataError(
                f"{where}: '{given}' leaves the data folder; expected a path relative to '{self.data}' and inside it. "
                f"Copy the file into the folder."
            )
        if format_of(path) is None:
            raise DataError(f"{where}: '{given}' is no supported image; expected {', '.join(EXTENSIONS)}.")
        return path


def _is_synthetic(given: str, where: str) -> bool:
    if given.lower() not in (SYNTHETIC_YES, "no", ""):
        raise DataError(f"{where} has '{given}' as {SYNTHETIC}; expected {SYNTHETIC_YES}, no or nothing.")
    return given.lower() == SYNTHETIC_YES


def _or_drop(name: str) -> str:
    return "" if name in REQUIRED_COLUMNS else f", or drop the column {name}"


def _inside(path: Path | None, root: Path) -> str:
    return path.relative_to(root).as_posix() if path is not None else ""


def _box(given: str, where: str) -> Box:
    numbers = re.fullmatch(r"(\d{1,9})[,;](\d{1,9})[,;](\d{1,9})[,;](\d{1,9})", given.replace(" ", ""))
    x, y, width, height = map(int, numbers.groups()) if numbers else (0, 0, 0, 0)
    if not (width and height):
        raise DataError(
            f"{where} has the roi '{given}'; expected x,y,w,h in whole pixels, w and h at least 1 (quoted), or x;y;w;h."
        )
    return x, y, width, height


def split_named(given: str, where: str) -> str:
    """The part "train", "val" or "test" that a cell names, or "". Raises: DataError on other words."""
    split = PARTS.get(given.lower(), given.lower())
    if split and split not in SPLITS:
        raise DataError(f"{where} has the split '{given}'; {nearest(split, SPLITS)}.")
    return split


def _sorted(rows: Sequence[LabelledImage]) -> tuple[LabelledImage, ...]:
    return tuple(sorted(rows, key=lambda row: row.id))
