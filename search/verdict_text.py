"""A verdict in words: what it claims, what it does not, and a table of every policy."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from search.outcome import format_interval, format_score
from search.verdict import Compared, Confirmed, Verdict

_ROLES = {
    "none": "no augmentation",
    "affine": "classical augmentation (affine)",
    "mixup": "mixup at 0.2",
    "genmix": "GenMix at its paper's settings",
}


def sentences(verdict: Verdict) -> tuple[str, ...]:
    """The verdict: on fresh splits, on the locked test set, how hopeful the search was, and what limits it."""
    best, comparisons = verdict.rows[0], verdict.comparisons
    name = f"{best.searched_as or best.trial} ({best.policy})"
    if best.score is None or best.score.mean is None:
        return (f"Verdict: none, as the best policy, {name}, could not be evaluated again ({best.state}).",)
    told = [_headline(verdict, name)]
    won = [each for each in comparisons if each.on_splits]
    if won:
        told.append(f"On the splits it is better than {_listed([_against(each) for each in won])}.")
    other = [each for each in comparisons if not each.on_splits]
    if other:
        told.append(f"On the splits it is not shown to be better than {_listed([_against(each) for each in other])}.")
    tested = [each for each in comparisons if each.locked is not None]
    if tested:
        told.append(
            "On the locked test set its balanced accuracy differs from that of "
            f"{_listed([_against_locked(each) for each in tested])}."
        )
    return (*told, *_optimism(best), *verdict.reused, *_unfinished(verdict.rows))


def _headline(verdict: Verdict, name: str) -> str:
    """What may be claimed: an improvement on fresh splits, and how the locked test set stands to it."""
    best, metric = verdict.rows[0], verdict.metric.replace("_", " ")
    won = [each for each in verdict.comparisons if each.on_splits]
    contradicted = [each for each in verdict.comparisons if each.contradicted]
    if contradicted:
        return (
            f"Verdict: no improvement is claimed for {name}: on the locked test set it is worse than "
            f"{_listed([_role(each.role) for each in contradicted])}."
        )
    if not won:
        own = f"the best trial, {name}, is itself '{_role(best.role)}' and" if best.role is not None else name
        return f"Verdict: nothing beats the references: {own} is not shown to be better in {metric}."
    if any(each.locked is None for each in won):
        return f"Verdict: {name} is better than {_listed([_role(each.role) for each in won])} in {metric}."
    both = [each for each in won if each.on_locked]
    if both:
        return (
            f"Verdict: {name} is better than {_listed([_role(each.role) for each in both])}, on fresh splits in "
            f"{metric} and on the locked test set in balanced accuracy."
        )
    return (
        f"Verdict: {name} is better than {_listed([_role(each.role) for each in won])} in {metric} on fresh splits of "
        f"the patients that it was chosen on; the locked test set does not show it."
    )


def _optimism(best: Confirmed) -> list[str]:
    if best.optimism is None or best.searched is None or best.score is None:
        return []
    kind = "hopeful" if best.optimism >= 0 else "doubtful"
    return [
        f"Optimism: the search scored it {best.searched:.3f}, the confirmation {best.score.mean:.3f}, so that the "
        f"search was {abs(best.optimism):.3f} too {kind}."
    ]


def _against(compared: Compared) -> str:
    found = compared.splits
    if found.mean is None:
        return f"{_role(compared.role)} (not evaluated)"
    if found.low is None or found.high is None:
        return f"{_role(compared.role)} ({found.mean:+.3f} over {found.n} evaluations, no interval)"
    return f"{_role(compared.role)} ({found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}], {_p(compared.p_holm)})"


def _against_locked(compared: Compared) -> str:
    found = compared.locked
    assert found is not None  # noqa: S101 - only those with a locked test set are told
    interval = f"[{found.low:+.3f}, {found.high:+.3f}]"
    return f"{_role(compared.role)} by {found.difference:+.3f} {interval} ({_p(compared.locked_p_holm)})"


def _p(value: float | None) -> str:
    return "p undefined" if value is None else "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _role(role: str) -> str:
    return _ROLES.get(role, f"{role} at ratio 1" if role.startswith("plain ") else role)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _unfinished(rows: Sequence[Confirmed]) -> list[str]:
    return [
        f"{row.trial} ({row.policy}) could not be evaluated to its end ({row.state})."
        for row in rows
        if row.state != "completed"
    ]


def print_verdict(console: Console, verdict: Verdict, cautions: Sequence[str]) -> None:
    """Print every configuration's confirmed scores, then the verdict, then what limits every number of the search."""
    table = Table(title="Confirmation", title_justify="left")
    headings = ("policy", "search", "confirmed", "95 % interval", "optimism")
    tested = any(row.locked is not None for row in verdict.rows)
    for heading in (*headings, *(("locked test", "95 % interval") if tested else ())):
        table.add_column(heading, overflow="fold", justify="left" if heading == "policy" else "right")
    for row in verdict.rows:
        name = row.policy + (f" [reference: {row.role}]" if row.role else "")
        cells = [_score(row.searched), format_score(row.score), format_interval(row.interval), _signed(row.optimism)]
        table.add_row(
            name, *cells, *((format_score(row.locked), format_interval(row.locked_interval)) if tested else ())
        )
    console.print(table)
    for sentence in sentences(verdict):
        console.print(sentence)
    console.print(
        f"({verdict.metric.replace('_', ' ')}; differences with 95 % intervals; p values of the corrected resampled "
        f"t-test (Nadeau & Bengio 2003), after Holm's correction; intervals of scores by bootstrap over patients)"
    )
    for caution in cautions:
        console.print(caution, style="yellow")


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"
