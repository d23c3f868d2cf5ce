"""The numbers of `/metrics`, in Prometheus's form. A label is an adapter, a state or an outcome, never a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily

disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the page and nobody reads them

CONTENT_TYPE = CONTENT_TYPE_LATEST
REGISTRY = CollectorRegistry(auto_describe=True)

_envelopes = Counter("relay_envelopes", "Arrivals by what became of them.", ["outcome"], registry=REGISTRY)
_deliveries = Counter(
    "relay_deliveries",
    "Tries to hand a copy over, by how they ended.",
    ["adapter", "outcome"],
    registry=REGISTRY,
)
_arrival_to_alert = Histogram(
    "relay_arrival_to_alert_seconds",
    "From the arrival of a letter to the alert in the GP's chat.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
    registry=REGISTRY,
)
_threads = Gauge("relay_threads", "Follow-ups by state.", ["state"], registry=REGISTRY)
_adapter_up = Gauge("relay_adapter_up", "1 while the connection stands.", ["adapter"], registry=REGISTRY)
_ruleset_ok = Gauge("relay_ruleset_ok", "1 while the rules on disk are the ones in force.", registry=REGISTRY)
_oldest_waiting = Gauge(
    "relay_oldest_waiting_seconds",
    "Age of the oldest copy still to leave; 0 when none waits.",
    registry=REGISTRY,
)


class _Rules:
    """Counts that the store keeps; a collector of their own because they do not begin at 0 with the process."""

    def __init__(self) -> None:
        self.counts: Mapping[str, Mapping[str, int]] = {}

    def collect(self) -> Iterator[CounterMetricFamily]:
        """One series for each rule and what it had to do with decisions."""
        family = CounterMetricFamily(
            "relay_rule_decisions", "Decisions that a rule had to do with, and how.", labels=["rule", "what"]
        )
        for rule, counts in self.counts.items():
            for what, count in counts.items():
                family.add_metric([rule, what], count)
        yield family


_rules = _Rules()
REGISTRY.register(_rules)

for _outcome in ("decided", "held", "ignored", "corrupt"):
    _envelopes.labels(_outcome)  # a counter that starts at 0 makes rates right from the first arrival


def envelope(outcome: str, count: int = 1) -> None:
    """`count` arrivals ended as decided, held, ignored or corrupt."""
    _envelopes.labels(outcome).inc(count)


def delivery(adapter: str, outcome: str, count: int = 1) -> None:
    """`count` tries ended as sent, deferred, ambiguous or failed."""
    _deliveries.labels(adapter, outcome).inc(count)


def alerted(seconds: float) -> None:
    """An alert was taken by the chat platform, `seconds` after its letter arrived."""
    _arrival_to_alert.observe(max(0.0, seconds))


def adapter_up(adapter: str, up: bool) -> None:
    """A connection was made or lost."""
    _adapter_up.labels(adapter).set(up)


def ruleset_ok(ok: bool) -> None:
    """The rules on disk are, or are not, the ones in force."""
    _ruleset_ok.set(ok)


def rules(counts: Mapping[str, Mapping[str, int]]) -> None:
    """What the store counts for each rule: decided, undecided, copied, observed, passed."""
    _rules.counts = counts


def standing(threads: Mapping[str, int], oldest_waiting: float | None) -> None:
    """What the store counts, read when somebody asks: follow-ups by state, and the age in seconds."""
    for state, count in threads.items():
        _threads.labels(state).set(count)
    _oldest_waiting.set(oldest_waiting or 0.0)


def exposition() -> bytes:
    """The text that `/metrics` answers, of type `CONTENT_TYPE`."""
    return generate_latest(REGISTRY)
