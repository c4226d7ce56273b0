"""On which split basis each stretch of a vendor's reply and of the table stands.

A true price runs on from bar to bar; what stands on another basis jumps by a split's ratio. So of all ways to
explain reply and table the likeliest is searched, from the newest bar backwards: the one that leaves the
smallest jumps for the fewest and most usual changes of basis. Where both hold the same bars, their ratio is
exact; elsewhere a split must be told from a night's move, and may be undecidable.

Offsets are logarithms: a price times exp(-offset) is on today's basis.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from itertools import pairwise

from include.mltrading.market.bars import Bar
from include.mltrading.market.runs import PLAIN, Run, runs_of, usual_move

SAME = math.log(1.02)  # shared bars that differ by less are on the same basis
NEARBY = timedelta(days=10)  # so far may the announced date be from the one that the prices show
_DECIDED = 3.25  # by so much (natural logarithm of the odds) the likeliest reading must beat the next

# What a change of basis costs, as the logarithm of how rare it is.
_UNRESTATED, _UNTRADED, _TWICE_THE_RATIO = 0.25, 8.0, 6.0  # of a reply, at the ex-date
_TAKEN_BACK, _ODD = 3.0, 1.0  # of the table, at the ex-date
_OTHER_DAY_NEARBY, _OTHER_DAY = 2.0, 4.0
_REPLY_UNEXPLAINED, _TABLE_UNEXPLAINED, _NEWEST_UNEXPLAINED = 6.0, 8.0, 9.0
_UNCLOSED = 1000.0  # a stretch on another basis, of which one end only was seen
_KEPT, _HOPELESS = 30, 40.0  # readings that are followed at a time, and how much worse than the best


@dataclass(frozen=True)
class Known:
    """A split that the reply announces or the table's record holds.

    announced, recorded: its ratio there, None where it is not. applied: by what the stored bars before it
    were divided so far. decided: the table is known to stand on the basis after it. guessed: another ex-date
    under which it is on record.
    """

    ex_date: date
    announced: float | None
    recorded: float | None = None
    applied: float = 1.0
    decided: bool = False
    guessed: date | None = None

    @property
    def ratio(self) -> float:
        """As announced; where it is not, as recorded."""
        return self.announced or self.recorded or 1.0

    @cached_property
    def sizes(self) -> list[float]:
        """Logarithms of the ratios that speak of it."""
        return list({math.log(ratio) for ratio in (self.announced, self.recorded) if ratio})

    def between(self, earlier: date, later: date) -> bool:
        """Whether an ex-date of it lies after `earlier` and not after `later`."""
        return any(day is not None and earlier < day <= later for day in (self.ex_date, self.guessed))

    def is_near(self, day: date) -> bool:
        """Whether a split seen on that day may be this one."""
        return abs(day - self.ex_date) <= NEARBY

    @cached_property
    def changes(self) -> list[tuple[float, float]]:
        """(by what earlier stored bars may turn out to be divided rightly, its cost), without the present."""
        costs: dict[float, float] = {}
        if self.announced:
            costs[self.announced] = 0.0 if not self.decided else 2.0 if self.applied == 1 else 1.0
        elif self.recorded:
            costs[self.recorded] = 2.0 if self.decided else 1.0
        costs.setdefault(1.0, _TAKEN_BACK)
        costs.setdefault(1 / self.ratio, _TAKEN_BACK)
        return [(ratio, cost) for ratio, cost in costs.items() if not math.isclose(ratio, self.applied)]


@dataclass(frozen=True)
class Choice:
    """What one reading says of a known split: the reply's jump at it (None: none seen), and by what stored
    bars before `since` (None: its ex-date) are to be divided in all.
    """

    jump: float | None = None
    applied: float = 1.0
    since: date | None = None


@dataclass(frozen=True)
class State:
    """One reading of a run and of all later ones. The offsets' last explained values stand beside them."""

    reply: float
    table: float
    cost: float
    choices: tuple[Choice, ...]
    known_reply: float
    known_table: float
    debt: float = 0.0
    later: State | None = None

    @property
    def reply_is_known(self) -> bool:
        """Whether splits explain the reply's offset."""
        return self.reply == self.known_reply

    @property
    def table_is_known(self) -> bool:
        """Whether splits explain the table's offset."""
        return self.table == self.known_table


@dataclass(frozen=True)
class Reading:
    """The likeliest reading: states and runs oldest first; undecided: the splits it is not sure of."""

    runs: list[Run]
    states: list[State]
    choices: tuple[Choice, ...]
    undecided: frozenset[date]

    def shows(self, split: Known) -> bool:
        """Whether it holds bars of the reply from both sides of the split's ex-date."""
        days = [run.day for run in self.runs if run.reply]
        return days[0] < split.ex_date <= days[-1]

    def jumps_near(self, split: Known) -> bool:
        """Whether a jump that nothing explains lies around the split's ex-date."""
        return any(
            split.is_near(later.day) and abs(_move(state, run, later_state, later)) >= PLAIN
            for (run, state), (later, later_state) in pairwise(zip(self.runs, self.states, strict=True))
        )


def read(reply: Sequence[Bar], stored: Mapping[datetime, Bar], known: Sequence[Known]) -> Reading:
    """The likeliest basis of each run of `reply` and of the stored bars of its span and around it."""
    sizes = [abs(size) for split in known for size in split.sizes if abs(size) >= PLAIN]
    runs = runs_of(reply, stored, sizes)
    scale = usual_move(runs)
    states = _first(runs, known)
    for later, run in zip(runs[:0:-1], runs[-2::-1], strict=True):
        crossed = [index for index, split in enumerate(known) if split.between(run.day, later.day)]
        following: dict[tuple[float, float, float], State] = {}
        for state in states:
            for found in _following(state, later, run, known, crossed, scale):
                key = (round(found.reply, 4), round(found.table, 4), round(found.debt, 4))
                if key not in following or found.cost < following[key].cost:
                    following[key] = found
        states = sorted(following.values(), key=lambda state: state.cost)[:_KEPT]
        states = [state for state in states if state.cost < states[0].cost + _HOPELESS]
    ends = sorted(
        (replace(state, cost=state.cost + _cost_of_end(state, known)) for state in states),
        key=lambda state: state.cost,
    )
    best = ends[0]
    unsure = {
        index
        for index, split in enumerate(known)
        if not split.decided and _is_unsure(index, split, ends, runs)
    }
    if unsure:
        # As they came, until the vendor or the price says more.
        as_it_came = [
            end
            for end in ends
            if end.cost < ends[0].cost + _DECIDED
            and not any(end.choices[index].jump for index in unsure)
            and all(end.choices[index].applied == known[index].applied for index in unsure)
        ]
        best = as_it_came[0] if as_it_came else best
    path = []
    step: State | None = best
    while step is not None:
        path.append(step)
        step = step.later
    return Reading(runs, path, best.choices, frozenset(known[index].ex_date for index in unsure))


def _cost_of_end(state: State, known: Sequence[Known]) -> float:
    """A stretch without its other end, and a table that stands otherwise than by the announced ratio."""
    odd = sum(
        split.announced is not None and choice.applied not in (1.0, split.announced)
        for split, choice in zip(known, state.choices, strict=True)
    )
    return _UNCLOSED * (abs(state.debt) > SAME) + _ODD * odd


def _is_unsure(index: int, split: Known, ends: Sequence[State], runs: Sequence[Run]) -> bool:
    """Whether readings that differ about the split are about equally likely."""
    table_before = any(run.table for run in runs if run.day < split.ex_date)
    costs: dict[tuple[float, float], float] = {}
    for end in ends:
        choice = end.choices[index]
        key = (round(choice.jump or 0.0, 4), round(choice.applied, 6) if table_before else 1.0)
        costs[key] = min(end.cost, costs.get(key, math.inf))
    ranked = sorted(costs.values())
    return len(ranked) > 1 and ranked[1] - ranked[0] < _DECIDED


def _cost_of_move(move: float, scale: float) -> float:
    """Of a move that is news: as Student's t with two degrees of freedom, since large ones are not rare."""
    return 1.5 * math.log1p(move * move / (2 * scale * scale))


def _first(runs: Sequence[Run], known: Sequence[Known]) -> list[State]:
    """The readings of the newest run: it is today's basis, unless splits on record came later."""
    newest = runs[-1]
    to_come = [index for index, split in enumerate(known) if split.ex_date > newest.day]
    unchanged = tuple(Choice(applied=split.applied) for split in known)
    replies = [(0.0, 0.0)]
    if any(known[index].applied != 1 for index in to_come):
        replies.append((sum(math.log(known[index].applied) for index in to_come), _UNRESTATED))
    states = []
    for offset, cost in replies:
        start = State(offset, 0.0, cost, unchanged, offset, 0.0)
        shared = next((run.apart for run in reversed(runs) if run.apart is not None), None)
        if newest.apart is not None:
            states += _shared(start, offset, newest.apart, _table_options(start, known, to_come), None)
            if abs(newest.apart) >= SAME:
                states.append(replace(start, reply=newest.apart, cost=cost + _NEWEST_UNEXPLAINED))
        else:
            states.append(start)
            if not newest.reply and shared is not None and abs(shared) >= SAME:
                # All that the vendor serves has moved, and the table's newest bars will have to follow.
                states += [replace(start, table=-shared, cost=cost + _NEWEST_UNEXPLAINED)]
    return states


def _table_options(
    state: State, known: Sequence[Known], crossed: Iterable[int], near: date | None = None
) -> list[tuple[float, float, tuple[Choice, ...]]]:
    """(offset, cost, choices) of the table before a boundary that lies at the ex-dates of `crossed`."""
    options = [(state.table, 0.0, state.choices)]
    if not state.table_is_known:
        options.append((state.known_table, _TABLE_UNEXPLAINED, state.choices))
    for index in crossed:
        options += [
            (
                offset + math.log(ratio / known[index].applied),
                cost + more,
                _with(choices, index, applied=ratio),
            )
            for offset, cost, choices in options
            if choices[index].applied == known[index].applied
            for ratio, more in known[index].changes
        ]
    if near is not None:
        for index, split in enumerate(known):
            if index in crossed or state.choices[index].applied != split.applied:
                continue
            if _may_be_near(split, near):
                ratio, more = split.ratio, _OTHER_DAY_NEARBY
            elif split.applied != 1 and split.is_near(near):
                ratio, more = 1.0, _TAKEN_BACK + _OTHER_DAY_NEARBY
            else:
                continue
            offset = state.table + math.log(ratio / split.applied)
            options.append((offset, more, _with(state.choices, index, applied=ratio, since=near)))
    return options


def _may_be_near(split: Known, day: date) -> bool:
    return (
        split.applied == 1
        and split.announced is not None
        and abs(math.log(split.ratio)) >= PLAIN
        and split.is_near(day)
    )


def _with(choices: tuple[Choice, ...], index: int, **changes: object) -> tuple[Choice, ...]:
    changed = replace(choices[index], **changes)  # type: ignore[arg-type]
    return (*choices[:index], changed, *choices[index + 1 :])


def _reply_options(
    state: State, run: Run, later: Run, known: Sequence[Known], crossed: Sequence[int]
) -> list[tuple[float, float, float, tuple[Choice, ...]]]:
    """(offset, cost, debt, choices) of the reply before a boundary."""
    options = [(state.known_reply, 0.0, state.debt, state.choices)]
    for index in crossed:
        options += [
            (offset + times * size, cost + more, debt, _with(choices, index, jump=times * size))
            for offset, cost, debt, choices in options
            for size in known[index].sizes
            for times, more in (
                (1, _UNRESTATED),
                (-1, _UNTRADED),
                (2, _TWICE_THE_RATIO),
                (-2, _TWICE_THE_RATIO),
            )
        ]
    others: list[tuple[float, float, float, tuple[Choice, ...]]] = []
    # Where shared bars differ as those after them do, no basis changes but that of reply and table alike.
    as_before = run.apart is not None and abs(run.apart - (state.reply - state.table)) < SAME
    move = later.reply[0] - run.reply[1] if run.reply and later.reply else math.inf
    for index, split in enumerate(known):
        if index in crossed:
            continue
        near = _may_be_near(split, later.day) and (later.day != run.day or later.day == split.ex_date)
        for size in split.sizes:
            # Only shared bars show a small ratio on another day; a large one shows by both its ends.
            if (run.apart is None or as_before) and (abs(size) < PLAIN or abs(move) < abs(size) / 2):
                continue
            if near:
                choices = _with(state.choices, index, jump=size)
                others.append((state.known_reply + size, _OTHER_DAY_NEARBY, state.debt, choices))
            for step in () if as_before else (size, -size):
                debt = state.debt + (step if run.apart is None else 0.0)
                others.append((state.known_reply + step, _OTHER_DAY, debt, state.choices))
    return options + others


def _shared(
    state: State,
    reply: float,
    apart: float,
    options: Sequence[tuple[float, float, tuple[Choice, ...]]],
    later: State | None,
) -> list[State]:
    """The states in which the reply has that offset and the table therefore one that differs by `apart`."""
    wanted = reply - apart
    offset, cost, choices = min(options, key=lambda option: (round(abs(option[0] - wanted), 3), option[1]))
    if abs(offset - wanted) < SAME:
        unknown = offset == state.table and not state.table_is_known
        base = state.known_table if unknown else offset
        return [replace(state, reply=reply, known_reply=reply, table=offset, known_table=base,
                        cost=state.cost + cost, choices=choices, later=later)]  # fmt: skip
    return [replace(state, reply=reply, known_reply=reply, table=wanted,
                    cost=state.cost + _TABLE_UNEXPLAINED, later=later)]  # fmt: skip


def _following(
    state: State, later: Run, run: Run, known: Sequence[Known], crossed: Sequence[int], scale: float
) -> list[State]:
    """The readings of `run`, given one of the run after it."""
    near = later.day if later.day != run.day else None
    found: list[State] = []
    if run.reply is None:
        for offset, cost, choices in _table_options(state, known, crossed, near):
            is_same = offset == state.table
            base = state.known_table if is_same and not state.table_is_known else offset
            found.append(replace(state, reply=state.known_reply, table=offset, known_table=base,
                                 cost=state.cost + cost, choices=choices, later=state))  # fmt: skip
    else:
        for offset, cost, debt, choices in _reply_options(state, run, later, known, crossed):
            start = replace(state, cost=state.cost + cost, debt=debt, choices=choices)
            options = _table_options(start, known, crossed, near)
            if run.apart is not None:
                found += _shared(start, offset, run.apart, options, state)
            else:
                for table, more, chosen in options:
                    base = state.known_table if table == state.table and not state.table_is_known else table
                    found.append(
                        replace(start, reply=offset, known_reply=offset, table=table, known_table=base,
                                cost=start.cost + more, choices=chosen, later=state)
                    )  # fmt: skip
        if run.apart is not None:
            for table, cost, choices in _table_options(state, known, crossed, near):
                reply = table + run.apart
                if all(abs(reply - other.reply) >= SAME for other in found):
                    goes_on = not state.reply_is_known and abs(reply - state.reply) < SAME
                    cost += 0.0 if goes_on else _REPLY_UNEXPLAINED
                    found.append(replace(state, reply=reply, table=table, known_table=table,
                                         cost=state.cost + cost, choices=choices, later=state))  # fmt: skip
    return [
        replace(one, cost=one.cost + _cost_of_move(_move(one, run, state, later), scale)) for one in found
    ]


def _move(state: State, run: Run, later_state: State, later: Run) -> float:
    """How far the price moves from the end of `run` to the start of `later`, both on today's basis."""
    if run.reply and later.reply:
        return (later.reply[0] - later_state.reply) - (run.reply[1] - state.reply)
    if run.table and later.table:
        return (later.table[0] - later_state.table) - (run.table[1] - state.table)
    end = run.reply[1] - state.reply if run.reply else (run.table or (0.0, 0.0))[1] - state.table
    start = (
        later.reply[0] - later_state.reply
        if later.reply
        else (later.table or (0.0, 0.0))[0] - later_state.table
    )
    return start - end
