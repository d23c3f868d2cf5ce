"""In charge of what the relay knows of itself: lives, counts, adapters, pauses, rules, invariants, retention."""

from __future__ import annotations

from sqlalchemy import select

from relay import tables
from relay.store.transaction import Transaction


def next_life(work: Transaction) -> int:
    """Number the life of this node that begins now."""
    counter = tables.counter
    statement = work.database.insert(counter)
    total = counter.c.value + statement.excluded.value
    work.run(
        statement.on_conflict_do_update(index_elements=["writer", "name"], set_={"value": total}),
        {"writer": work.node, "name": "node.lives", "value": 1},
    )
    query = select(counter.c.value).where(counter.c.writer == work.node, counter.c.name == "node.lives")
    return int(work.run(query).scalar_one())
