"""How a vendor's reply and the stored bars come to one split basis, and what goes on record for it.

The vendor restates history before the open of the ex-date, days later, in part, twice, or never, tells of it
late or wrongly, and takes it back. So the prices decide (see `basis`): after `reconcile`, reply and table run
on across every ex-date, and the record says by what the stored bars before each of them were divided.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from fractions import Fraction
from statistics import median

from include.mltrading.errors import OtherHistoryError
from include.mltrading.market import basis
from include.mltrading.market.bars import Bar
from include.mltrading.market.basis import NEARBY, SAME, Known, Reading, State
from include.mltrading.market.calendar import sessions_between
from include.mltrading.market.runs import Run
from include.mltrading.market.yahoo import Dividend, Split

EVENT, RATIO, TAKEN_BACK = "event", "ratio", "taken back"

_EXACT = math.log(1.005)  # a split moves every bar by the same ratio
_UNUSUAL = math.log(49)  # unannounced, it may be a wrong unit (a factor of 100): sessions must confirm it
_CONFIRMING_SESSIONS = 3
_CONVINCING = 10  # bars that show an odd ratio, such as a spin-off's
_ENOUGH = 3  # bars that show a usual one
_FAR = math.log(1.3)  # no correction of a single bar moves all its prices so far


@dataclass(frozen=True)
class Recorded:
    """A split on record. applied: by what the stored bars before it were divided for it; 1: by nothing.

    decided: the stored bars are known to stand on the basis after it.
    """

    split: Split
    applied: float
    decided: bool


@dataclass(frozen=True)
class Found:
    """What a reply has shown of a split, for the record.

    divide: by what the stored bars before `before` (None: its ex-date) are to be divided now (1: they stay).
    evidence: EVENT or RATIO. decided: False where the prices cannot tell yet. replaces: another ex-date under
    which it is on record. ended: it was none, and goes from the record.
    """

    split: Split
    evidence: str
    divide: float = 1.0
    decided: bool = True
    replaces: date | None = None
    ended: bool = False
    before: date | None = None


@dataclass(frozen=True)
class Adjustment:
    """What brings reply and table to today's basis.

    reply: (start, factor): from that instant on the reply's prices are to be divided by the factor, up to the
    next start; None: those bars stand on no basis that splits explain, and the table's are kept. found: what
    changes on record and in the table. mistaken: starts of stored bars that stand on no basis, while the
    reply runs on: whatever their distance, the reply's take their place.
    """

    reply: list[tuple[datetime, float | None]] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    mistaken: frozenset[datetime] = frozenset()

    @property
    def moves_table(self) -> bool:
        """Whether stored bars are to be restated."""
        return any(found.divide != 1 for found in self.found)

    def factor(self, instant: datetime) -> float | None:
        """By what the reply's prices of that instant are to be divided; None: they are of no use."""
        place = bisect_right(self.reply, instant, key=lambda part: part[0]) - 1
        return self.reply[place][1] if place >= 0 else 1.0

    def rebased(self, bars: Sequence[tuple[Bar, bool]]) -> list[tuple[Bar, bool]]:
        """The reply's bars, each with whether it is final, on today's basis; useless ones left out."""
        with_factors = [(bar, final, self.factor(bar.timestamp)) for bar, final in bars]
        return [(divided(bar, factor), final) for bar, final, factor in with_factors if factor is not None]

    def amount(self, dividend: Dividend, stored: float | None) -> float:
        """The dividend a share on today's basis. stored: what the restated record holds for the day."""
        factor = self.factor(dividend_instant(dividend.ex_date)) or 1.0
        # The vendor may have restated dividends and bars at different times.
        if stored is not None and math.isclose(dividend.amount, stored, rel_tol=0.01):
            return dividend.amount
        return dividend.amount / factor


def dividend_instant(day: date) -> datetime:
    """When a dividend's ex-date opens, or would."""
    sessions = sessions_between(day, day + timedelta(days=10))
    return sessions[0].open


def divided(bar: Bar, factor: float) -> Bar:
    """The bar with its prices divided, and its volume multiplied, by the factor."""
    if factor == 1:
        return bar
    prices = (bar.open / factor, bar.high / factor, bar.low / factor, bar.close / factor)
    return Bar(
        bar.timestamp, *prices, round(bar.volume * factor) if math.isfinite(bar.volume) else bar.volume
    )


def reconcile(
    symbol: str,
    reply: Sequence[Bar],
    stored: Mapping[datetime, Bar],
    events: Sequence[Split],
    recorded: Sequence[Recorded],
    span: tuple[date, date] | None = None,
) -> Adjustment:
    """Find out what brings reply and table to one basis.

    reply: well-formed bars, oldest first, the running one too. stored: final bars of the reply's span and
    some around it. events: what the reply announces. recorded: what the record holds. span: the first and the
    last day whose events the reply would tell. Raises OtherHistoryError when the two disagree in a way that
    no split explains.
    """
    if not reply:
        return Adjustment()
    known = _known(events, recorded)
    reading = basis.read(reply, stored, known)
    found = [
        item for index, split in enumerate(known) if (item := _found(index, split, reading, span)) is not None
    ]
    unexplained = _unexplained(symbol, reading)
    parts: list[tuple[datetime, float | None]] = []
    for run, state in zip(reading.runs, reading.states, strict=True):
        # Twelve digits: the logarithms' last bits are noise, and would round volumes the other way.
        factor = float(f"{math.exp(state.reply):.12g}") if state.reply_is_known else None
        if run.reply and (not parts or parts[-1][1] != factor):
            parts.append((run.start, factor))
    mistaken = frozenset() if unexplained else _mistaken(reading, stored)
    return Adjustment([] if parts == [(parts[0][0], 1.0)] else parts, found + unexplained, mistaken)


def _mistaken(reading: Reading, stored: Iterable[datetime]) -> frozenset[datetime]:
    """Starts of the stored bars that stand on no basis while the reply, which has them too, runs on."""
    return frozenset(
        start
        for run, state, later in zip(reading.runs, reading.states, [*reading.runs[1:], None], strict=True)
        if run.shared and state.reply_is_known and not state.table_is_known
        for start in stored
        if run.start <= start and (later is None or start < later.start)
    )


def _known(events: Sequence[Split], recorded: Sequence[Recorded]) -> list[Known]:
    """Every split that is announced or on record, oldest first."""
    left = {item.split.ex_date: item for item in recorded}
    known: list[Known] = []
    for event in events:
        if event.ex_date in {split.ex_date for split in known}:
            continue
        held = left.pop(event.ex_date, None) or _guessed(event, left.values(), events)
        if held is None:
            known.append(Known(event.ex_date, event.ratio))
        else:
            left.pop(held.split.ex_date, None)
            guessed = held.split.ex_date if held.split.ex_date != event.ex_date else None
            known.append(
                Known(event.ex_date, event.ratio, held.split.ratio, held.applied, held.decided, guessed)
            )
    known += [Known(day, None, held.split.ratio, held.applied, held.decided) for day, held in left.items()]
    return sorted(known, key=lambda split: split.ex_date)


def _guessed(event: Split, recorded: Iterable[Recorded], events: Sequence[Split]) -> Recorded | None:
    """The split that is on record under another ex-date than the one that is announced for it."""
    announced = {other.ex_date for other in events}
    for item in recorded:
        if (
            item.split.ex_date not in announced
            and abs(math.log(item.split.ratio / event.ratio)) < SAME
            and abs(item.split.ex_date - event.ex_date) <= NEARBY
        ):
            return item
    return None


def _found(
    index: int,
    split: Known,
    reading: Reading,
    span: tuple[date, date] | None,
) -> Found | None:
    """What changes on record for a known split; None where nothing does."""
    choice = reading.choices[index]
    newest = reading.runs[-1].day
    if split.ex_date > newest and choice.applied == split.applied:
        return None  # nothing has been traded after it
    if split.recorded and not split.decided and choice.applied == split.applied and not reading.shows(split):
        return None  # it is no longer asked for, and stays as open as it was
    divide = choice.applied / split.applied
    ratio = choice.applied if choice.applied != 1 else split.ratio
    evidence = EVENT if split.announced and math.isclose(ratio, split.announced) else RATIO
    withdrawn = split.announced is None and (
        (split.applied != 1 and choice.applied == 1)
        or (choice.applied == 1 and span is not None and span[0] <= split.ex_date <= min(span[1], newest))
    )
    if withdrawn:
        gone = Split(split.ex_date, split.ratio)
        return Found(gone, RATIO, divide, decided=False, ended=True, before=choice.since)
    decided = split.ex_date not in reading.undecided and not (
        choice.applied == 1
        and (
            split.applied != 1
            or (choice.jump is not None and _is_odd(choice.jump, split))
            or (not split.decided and reading.jumps_near(split))
        )
    )
    ex_date, replaces = split.ex_date, split.guessed
    if choice.since is not None and choice.applied != 1:
        ex_date, replaces = choice.since, split.ex_date
    if split.announced is None and divide == 1 and decided == split.decided:
        return None
    return Found(
        Split(ex_date, ratio), evidence, divide, decided or (split.decided and divide == 1), replaces
    )


def _is_odd(jump: float, split: Known) -> bool:
    """Whether the reply's jump is another than that of a split which it has not restated."""
    return all(abs(jump - size) >= SAME for size in split.sizes)


def _unexplained(symbol: str, reading: Reading) -> list[Found]:
    """The split that only a ratio between reply and table shows, if one does.

    Raises OtherHistoryError when there is a ratio and no split explains it.
    """
    pairs = list(zip(reading.runs, reading.states, strict=True))
    shared = [(run, state) for run, state in pairs if run.shared]
    total = sum(run.shared for run, _ in shared)
    apart = [
        (run.shared, state.reply - state.table)
        for run, state in shared
        if not (state.reply_is_known and state.table_is_known) and abs(state.reply - state.table) >= SAME
    ]
    if not apart:
        return []
    # What reaches back to the oldest shared bars: a stretch between two others is a revision of its bars.
    stretch: list[tuple[Run, State]] = []
    for run, state in shared:
        if state.table_is_known or (stretch and abs(state.table - stretch[0][1].table) >= SAME):
            break
        stretch.append((run, state))
    bars = sum(run.shared for run, _ in stretch)
    if stretch:
        size = stretch[-1][1].table - stretch[-1][1].known_table
        usual = abs(size - math.log(_usual_ratio(size))) < _EXACT / 2
        place = reading.runs.index(stretch[-1][0]) + 1
        newer = [run for run in reading.runs[place:] if run.reply]
        confirmed = len({run.day for run in newer}) >= _CONFIRMING_SESSIONS
        convincing = (usual and bars >= min(_ENOUGH, total)) or bars >= _CONVINCING
        if convincing and (abs(size) < _UNUSUAL or confirmed):
            day = newer[0].day if newer else _next_session(stretch[-1][0].day)
            ratio = _usual_ratio(size) if usual else math.exp(size)
            return [Found(Split(day, ratio), RATIO, ratio)]
    count = sum(number for number, _ in apart)
    far = median(abs(size) for _, size in apart)
    if count > total / 2 and (total >= _ENOUGH or far >= _FAR):
        raise OtherHistoryError(
            symbol,
            f"{count} of {total} bars differ from the stored ones by more than 2%, typically "
            f"{math.exp(median(size for _, size in apart)):.3g} times, and no split explains it",
        )
    return []


def _usual_ratio(size: float) -> float:
    """The ratio of small whole numbers nearest to exp(size): 4, 3/2, 1/10."""
    ratio = math.exp(min(max(size, -8.0), 8.0))
    if ratio < 1:
        return float(1 / Fraction(1 / ratio).limit_denominator(4))
    return float(Fraction(ratio).limit_denominator(4))


def _next_session(day: date) -> date:
    return sessions_between(day + timedelta(days=1), day + timedelta(days=10))[0].day
