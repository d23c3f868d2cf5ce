"""A point that lies in one box and outside many others, or which of them leave no such point.

A space is a product of axes, each a finite row of cells; a box allows some cells of each axis. Deciding
whether boxes cover another is NP-complete, so a search has a budget; rule files, whose conditions are few and
whose axes are shared, stay far below it. The method is box cover by geometric resolution (Abo Khamis, Ngo, Ré,
Rudra, *Joins via Geometric Resolutions*, 2015): whatever part of the space is found covered is remembered as
one larger box, and whole sets of boxes are looked at in a few operations on long integers, one bit a box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Box: TypeAlias = Mapping[int, int]
"""Axis → the cells it allows, as bits. An axis left out allows every cell."""

_CANDIDATES: Final = 4
_DEEPEST: Final = 400
_MOST_CELLS: Final = 3_000_000
_PATIENCE: Final = 1_000
_KEPT, _MOST_KEPT = 200, 3_000


class OutOfBudget(Exception):
    """The search took more steps than it may."""


class _StartAgain(Exception):
    """Long enough in one direction: with what was learned there, another may be shorter."""


@dataclass(frozen=True, slots=True)
class Covered:
    """A box of which no point lies outside the others; `owners` are bits: whose boxes the proof used."""

    cells: Box
    owners: int


class Space:
    """Axes, and the boxes that points must stay out of, in an order; each box has an owner.

    `sizes` are the cells of each axis, of which lower ones are preferred in a point. An owner is a number
    from 0; None marks a box that belongs to the space itself and is never named. Raises OutOfBudget when that
    is more than can be held at hand.
    """

    def __init__(self, sizes: Sequence[int], boxes: Iterable[tuple[Box, int | None]]) -> None:
        self._full = [(1 << size) - 1 for size in sizes]
        self._boxes: list[Covered] = []
        self._owned: dict[int | None, int] = {}
        by_mask: list[dict[int, int]] = [{} for _ in sizes]
        bound = [0] * len(sizes)
        for cells, owner in boxes:
            bit = 1 << len(self._boxes)
            self._boxes.append(Covered(cells, 0 if owner is None else 1 << owner))
            self._owned[owner] = self._owned.get(owner, 0) | bit
            for axis, mask in cells.items():
                by_mask[axis][mask] = by_mask[axis].get(mask, 0) | bit
                bound[axis] |= bit
        every = (1 << len(self._boxes)) - 1
        self._by_mask = [tuple(each.items()) for each in by_mask]
        self._free = [every & ~each for each in bound]
        if sum(mask.bit_count() for each in by_mask for mask in each) > _MOST_CELLS:
            raise OutOfBudget
        self._at: list[list[int]] = []
        self._calm: list[tuple[int, ...]] = []
        for axis, size in enumerate(sizes):
            row = [self._free[axis]] * size
            for mask, those in self._by_mask[axis]:
                for cell in bits(mask):
                    row[cell] |= those
            self._at.append(row)
            self._calm.append(tuple(sorted(range(size), key=lambda cell: (row[cell].bit_count(), cell))))
        self._known: list[dict[int, tuple[int, int]]] = [{} for _ in sizes]
        self._learned: list[tuple[int, int]] = []
        self._found: dict[tuple[tuple[int, int], ...], Covered] = {}
        self._stop = 0
        self.left = 0
        """The steps of the budget that the last search did not take."""

    def forbid(self, cells: Box) -> None:
        """One more box that belongs to the space itself."""
        self._owned[None] = self._owned.get(None, 0) | self._add(Covered(cells, 0))

    def _add(self, box: Covered) -> int:
        bit, cells = 1 << len(self._boxes), box.cells
        self._boxes.append(box)
        for axis, row in enumerate(self._at):
            mask = cells.get(axis, self._full[axis])
            if axis in cells:
                self._by_mask[axis] = (*self._by_mask[axis], (mask, bit))
            else:
                self._free[axis] |= bit
            for cell in bits(mask):
                row[cell] |= bit
            self._known[axis].clear()
        return bit

    def of(self, owners: Iterable[int]) -> int:
        """The boxes of these owners and of the space itself, as a selection for `outside`."""
        chosen = self._owned.get(None, 0)
        for owner in owners:
            chosen |= self._owned.get(owner, 0)
        return chosen

    def covering(self, box: Box, among: int) -> int | None:
        """The owner of the first single box that holds the whole of another, or None."""
        alive = among & ~self._owned.get(None, 0)
        for axis, mask in enumerate(self._full):
            alive &= self._around(axis, box.get(axis, mask))[1]
        return self._boxes[(alive & -alive).bit_length() - 1].owners.bit_length() - 1 if alive else None

    def outside(self, box: Box, among: int, budget: int) -> tuple[int, ...] | Covered:
        """A point (a cell for each axis) of `box` outside all boxes selected by `among`, or the proof of none.

        Raises OutOfBudget after `budget` steps.
        """
        here = [mask & box.get(axis, mask) for axis, mask in enumerate(self._full)]
        if not all(here):
            return Covered({axis: 0 for axis, mask in enumerate(here) if not mask}, 0)
        self.left, patience = budget, _PATIENCE
        while True:
            self._stop, self._found = max(0, self.left - patience), {}
            for bit, needed in self._learned:
                # A box made of others counts where all of those do.
                if not needed & ~among:
                    among |= bit
            try:
                found = self._search(
                    here.copy(), [self._around(axis, mask) for axis, mask in enumerate(here)], among, 0
                )
            except _StartAgain:
                self._learn()
                patience += patience // 2
                continue
            if isinstance(found, Covered):
                return found
            return tuple((mask & -mask).bit_length() - 1 for mask in found)

    def _learn(self) -> None:
        """Keep the covered boxes that a search found on its way, the widest of them, for all that come after."""
        for _, box in sorted(self._found.items(), key=lambda each: len(each[0]))[:_KEPT]:
            if len(self._learned) < _MOST_KEPT:
                needed = self._owned.get(None, 0)
                for owner in bits(box.owners):
                    needed |= self._owned[owner]
                self._learned.append((self._add(box), needed))

    def _around(self, axis: int, mask: int) -> tuple[int, int]:
        """The boxes that share a cell with a part of an axis, and those that hold all of that part."""
        known = self._known[axis].get(mask)
        if known is None:
            if not mask & (mask - 1):
                row = self._at[axis][mask.bit_length() - 1] if mask else 0
                known = row, row
            else:
                touching = holding = self._free[axis]
                for each, those in self._by_mask[axis]:
                    if each & mask:
                        touching |= those
                        if not mask & ~each:
                            holding |= those
                known = touching, holding
            self._known[axis][mask] = known
        return known

    def _search(
        self, here: list[int], around: list[tuple[int, int]], among: int, depth: int
    ) -> list[int] | Covered:
        """A part of `here` that is free of boxes, or a covered box that holds all of `here`.

        `here` and `around` are changed; each part taken off is remembered with the covered box it lay in.
        """
        taken: list[tuple[int, int, Covered]] = []
        while True:
            self.left -= 1
            if self.left < self._stop or depth > _DEEPEST:
                raise OutOfBudget if self.left < 0 or depth > _DEEPEST else _StartAgain
            alive = among
            for touching, _ in around:
                alive &= touching
            if not alive:
                return here
            # In how many axes does each box not hold all of `here`: at least one, two, three.
            one = two = three = 0
            for touching, holding in around:
                if touching is not holding:
                    differs = alive & ~holding
                    if differs:
                        three |= two & differs
                        two |= one & differs
                        one |= differs
            whole = alive & ~one
            if whole:
                return self._folded(self._boxes[(whole & -whole).bit_length() - 1], here, taken)
            single = one & ~two
            if single:
                covered = self._withdraw(here, around, single, taken)
                if covered is not None:
                    return self._folded(covered, here, taken)
                continue
            axis, cell = self._choice(here, around, (two & ~three) or alive, alive)
            inner, near = here.copy(), around.copy()
            inner[axis] = 1 << cell
            near[axis] = self._around(axis, 1 << cell)
            found = self._search(inner, near, alive, depth + 1)
            if not isinstance(found, Covered):
                return found
            self._found[tuple(sorted(found.cells.items()))] = found
            part = found.cells.get(axis)
            if part is None or not here[axis] & ~part:
                return self._folded(found, here, taken)
            taken.append((axis, here[axis], found))
            here[axis] &= ~part
            around[axis] = self._around(axis, here[axis])

    def _withdraw(
        self,
        here: list[int],
        around: list[tuple[int, int]],
        single: int,
        taken: list[tuple[int, int, Covered]],
    ) -> Covered | None:
        """Leave boxes that hold all of `here` but for one axis. The last one, when nothing is left."""
        changed = set()
        for number in bits(single):
            box = self._boxes[number]
            outer = None
            for axis, part in box.cells.items():
                mask = here[axis]
                if not mask & part:
                    break
                if mask & ~part:
                    outer = axis
            else:
                if outer is None:
                    return box
                mask = here[outer]
                taken.append((outer, mask, box))
                here[outer] = mask & ~box.cells[outer]
                changed.add(outer)
        for axis in changed:
            around[axis] = self._around(axis, here[axis])
        return None

    def _choice(
        self, here: list[int], around: list[tuple[int, int]], narrow: int, alive: int
    ) -> tuple[int, int]:
        """An axis and a cell of it outside one of the `narrow` boxes: the one that leaves fewest boxes."""
        first = narrow & -narrow
        box = self._boxes[first.bit_length() - 1].cells
        best: tuple[int, int, int] | None = None
        for axis, part in box.items():
            open_cells = here[axis] & ~part
            if not open_cells:
                continue
            row = self._at[axis]
            tried = 0
            for cell in self._calm[axis]:
                if open_cells >> cell & 1:
                    score = ((alive & row[cell]).bit_count(), axis, cell)
                    if best is None or score < best:
                        best = score
                    tried += 1
                    if tried == _CANDIDATES:
                        break
        assert best is not None  # noqa: S101 - the box holds not all of `here`
        return best[1], best[2]

    def _folded(self, covered: Covered, here: list[int], taken: list[tuple[int, int, Covered]]) -> Covered:
        """Grow a covered box over the parts that were taken off before, by resolution with what covers them."""
        for axis, before, other in reversed(taken):
            part = covered.cells.get(axis)
            if part is None or not before & ~part:
                continue
            joined = part | other.cells[axis]
            cells = {
                each: covered.cells.get(each, full) & other.cells.get(each, full)
                for each in {**covered.cells, **other.cells}
                if each != axis
                for full in (self._full[each],)
            }
            if joined != self._full[axis]:
                cells[axis] = joined
            covered = Covered(cells, covered.owners | other.owners)
        return covered


def bits(mask: int) -> Iterator[int]:
    """The numbers of the set bits, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
