"""The subcommand ``predict``: what a refitted model says of images, as a table."""

from __future__ import annotations

import csv
import io
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from search.commands import refit_command
from search.out_file import unwritable, why, writable, write_out
from search.settings import SettingsError
from search.storage import find_search
from spaces.errors import InputError
from spaces.wording import counted
from trainables.data.readers import SliceRule
from trainables.model_folder import CARD, MODEL, WARNING, Model, load_model, put_back
from trainables.prediction import Predicted, columns, find_pictures, likeliest, predict
from trainables.trial import best_device

STANDARD_OUTPUT = "-"
EXIT_UNREADABLE = 1
_INSTEAD = "name a file in a folder that exists, or - to print the table"
_NAMED = 20
"""How many unreadable images are named on standard error; the table has all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictWish:
    """What the user asks for.

    Args:
        model: a search's name, a model's folder, or an address of MLflow.
        images: files, folders and archives.
        out: the table to write; "-" is standard output.
        slice_rule: which slice of a volume is meant; None: the one that the model was trained on.
        storage: the folder of the searches.
        tracking_uri: where an address of MLflow is looked up.
    """

    model: str
    images: Sequence[Path]
    out: str
    slice_rule: SliceRule
    storage: Path
    tracking_uri: str


def predict_images(wish: PredictWish) -> int:
    """Classify images and write the table. Returns the exit code: 1 if an image could not be read.

    Raises: InputError on a model or a path that does not exist, or a table that cannot be written.
    """
    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    out = None if wish.out == STANDARD_OUTPUT else writable(Path(wish.out), instead=_INSTEAD)
    with model_of(wish.model, wish.storage, wish.tracking_uri) as folder:
        model = load_model(folder, best_device(1.0))
    pictures = find_pictures(wish.images)
    with console.status("reading images") as status:
        found = list(
            predict(
                model,
                pictures,
                slice_rule=wish.slice_rule,
                on_progress=lambda done, total: status.update(f"reading images {done}/{total}"),
            )
        )
    text = table(found, model.classes)
    if out is None:
        sys.stdout.write(_in(sys.stdout.encoding or "utf-8", text))
        sys.stdout.flush()
    else:
        try:
            write_out(out, _in("utf-8", text))
        except OSError as error:
            raise unwritable(out, f"could not be written ({why(error)})", instead=_INSTEAD) from None
    _report(found, model, None if out is None else wish.out, console)
    return EXIT_UNREADABLE if any(each.error for each in found) else 0


def table(found: Sequence[Predicted], classes: Sequence[str]) -> str:
    """Predictions as CSV: ``path``, ``probability_CLASS`` of each class, ``prediction``, ``error``.

    The prediction is the likeliest class, the first of equals. Of an image that cannot be used there is an error alone.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", *columns(classes)])
    for each in found:
        numbers = each.probabilities or [""] * len(classes)
        writer.writerow([each.name, *numbers, likeliest(each, classes), each.error])
    return text.getvalue()


@contextmanager
def model_of(given: str, storage: Path, tracking_uri: str) -> Iterator[Path]:
    """The folder of a model; one that had to be fetched is removed at the end.

    Args:
        given: an address of MLflow, a folder with a ``model.json``, or the name of a refitted search.
        storage: the folder of the searches.
        tracking_uri: where an address of MLflow is looked up.

    Raises: InputError if there is no such model.
    """
    if re.match(r"[a-z][a-z0-9+-]*:/", given):
        from mlflow_tracking.models import fetch
        from search.inputs import absolute_uri

        with tempfile.TemporaryDirectory() as into:
            yield fetch(given, absolute_uri(tracking_uri), Path(into))
        return
    folder = Path(given)
    put_back(folder)
    if (folder / CARD).is_file():
        yield folder
        return
    try:
        search = find_search(storage, given)
    except InputError as error:
        raise SettingsError(
            f"'{given}' is no model: no folder of that name has a {CARD}, and {error} Or give models:/NAME/VERSION."
        ) from None
    put_back(search.folder / MODEL)
    if not (search.folder / MODEL / CARD).is_file():
        raise SettingsError(f"'{given}' has no model yet; train one by: {refit_command(search)}")
    yield search.folder / MODEL


def _in(encoding: str, text: str) -> str:
    """A text that can be encoded so: other characters, as in names of files that are not UTF-8, as escapes."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _report(found: Sequence[Predicted], model: Model, out: str | None, console: Console) -> None:
    """Say on standard error what was predicted, what could not be read, and what the numbers may not be taken for."""
    bad = [each for each in found if each.error]
    for each in bad[:_NAMED]:
        console.print(f"{each.name}: {each.error}", style="red")
    if len(bad) > _NAMED:
        console.print(f"and {len(bad) - _NAMED} more that cannot be read", style="red")
    good = [each for each in found if not each.error]
    where = "" if out is None else f": {out}"
    console.print(f"{len(good)} of {counted(len(found), 'image')} classified by {model.search} {model.trial}{where}")
    for caution in _cautions(good, model):
        console.print(caution, style="yellow")
    console.print(WARNING, style="yellow")


def _cautions(good: Sequence[Predicted], model: Model) -> Iterator[str]:
    count = Counter(
        seen=sum(each.was_seen for each in good),
        flat=sum(not each.has_spacing for each in good),
        whole=sum(not each.has_region for each in good),
    )
    if count["seen"]:
        yield (
            f"The model was trained on {count['seen']} of these images: what it says of them does not tell how well it "
            f"does on new patients."
        )
    view = model.scaling.field_of_view
    if view is not None and count["flat"]:
        yield (
            f"The model was trained on squares of {view:.3g} mm. Of {counted(count['flat'], 'image')} without a pixel "
            f"spacing it is shown the largest central square."
        )
    if model.has_regions and count["whole"]:
        yield (
            f"The model was trained on regions of interest, and was shown {counted(count['whole'], 'image')} without "
            f"one; give a folder whose labels.csv names them."
        )
