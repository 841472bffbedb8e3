"""What a simulated fleet is: its devices, metrics, spacing and length, and how often each fault of the real world strikes.

`pipeline.ingest.signals` makes its clean readings, `pipeline.ingest.faults` breaks them, `pipeline.ingest.simulate` writes them.
Everything follows from the seed; each device has random streams of its own, so that more devices leave the others as they were.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self

import numpy as np

from pipeline.errors import SettingsError
from pipeline.schemas import EPOCH, MICROSECOND
from pipeline.settings import Aggregation

MAX_NETWORK_DELAY = timedelta(seconds=3)


@dataclass(frozen=True)
class Metric:
    """A sensor's data sheet: its unit, how its readings become one observation, the decimals it resolves, the size of a level shift."""

    unit: str
    aggregation: Aggregation
    decimals: int
    typical_shift: float


METRICS: dict[str, Metric] = {
    "temperature": Metric("degC", "mean", 2, 3.0),
    "power": Metric("kW", "mean", 3, 2.0),
    "energy": Metric("kWh", "counter", 3, 0.0),  # a counter's level does not shift: it is reset
    "humidity": Metric("%", "mean", 1, 8.0),
}


@dataclass(frozen=True, kw_only=True)
class FaultSpec:
    """How often each fault begins: expected incidents per device and tick; 0 switches it off.

    Those of clocks and streams (`LIVE_FAULTS`) are on only where they are named.

    >>> FaultSpec.only("gap", rate=0.01).gap, FaultSpec.none().gap
    (0.01, 0.0)
    """

    gap: float = 0.0
    duplicate: float = 0.0
    out_of_order: float = 0.0
    late: float = 0.0
    corrected: float = 0.0
    wrong_unit: float = 0.0  # strikes temperature only
    nan: float = 0.0
    clock_jump: float = 0.0
    garbage: float = 0.0
    level_shift: float = 0.0  # this and the next are part of the signal itself
    counter_reset: float = 0.0
    clock_reset: float = 0.0  # from here on: clocks and streams
    outage: float = 0.0
    unit_change: float = 0.0  # strikes temperature only
    future_clock: float = 0.0
    restamped: float = 0.0
    retirement: float = 0.0

    @classmethod
    def none(cls) -> Self:
        """Return a specification without faults."""
        return cls()

    @classmethod
    def only(cls, *faults: str, rate: float = 0.002) -> Self:
        """Return a specification with just the named faults.

        Raises:
            SettingsError: if a name is no fault.
        """
        unknown = sorted(set(faults) - set(FAULTS + LIVE_FAULTS))
        if unknown:
            names = ", ".join(FAULTS + LIVE_FAULTS)
            raise SettingsError(f"A fault requires one of the names {names}; got {', '.join(unknown)}. Correct the name.")
        return cls(**dict.fromkeys(faults, rate))

    @classmethod
    def all(cls, rate: float = 0.002) -> Self:
        """Return a specification with every fault of `FAULTS`; the signal's own level shifts and resets come at a quarter of the rate."""
        return cls(**{name: rate / 4 if name in SIGNAL_FAULTS else rate for name in FAULTS})


LIVE_FAULTS = ("clock_reset", "outage", "unit_change", "future_clock", "restamped", "retirement")
FAULTS = tuple(name for name in FaultSpec.__dataclass_fields__ if name not in LIVE_FAULTS)
SIGNAL_FAULTS = ("level_shift", "counter_reset")
EVENT_FAULTS = tuple(name for name in FAULTS if name not in SIGNAL_FAULTS)


@dataclass(frozen=True, kw_only=True)
class FleetSpec:
    """A fleet to simulate.

    Attributes:
        num_devices: sensors on one site, under one weather.
        days: length of the history.
        sample_interval: spacing of the readings, whole seconds.
        start: stamp of the first reading, UTC.
        seed: decides everything that is random.
        faults: how often each fault begins.
        metrics: what each device measures, of `METRICS`.
        allowed_lateness: what ingest will allow; out-of-order readings keep within it, late ones exceed it.
        idle_timeout: what ingest will call a silence; outages exceed it.
    """

    num_devices: int = 4
    days: int = 90
    sample_interval: timedelta = timedelta(hours=1)
    start: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    seed: int = 7
    faults: FaultSpec = field(default_factory=FaultSpec.all)
    metrics: tuple[str, ...] = tuple(METRICS)
    allowed_lateness: timedelta = timedelta(minutes=1)
    idle_timeout: timedelta = timedelta(hours=1)

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated.

        Raises:
            SettingsError: naming the field.
        """
        second = timedelta(seconds=1)
        if self.num_devices < 1 or self.days < 1 or self.seed < 0:
            got = f"{self.num_devices}, {self.days} and {self.seed}"
            raise SettingsError(f"A fleet requires num_devices >= 1, days >= 1 and seed >= 0; got {got}. Correct them.")
        if not second <= self.sample_interval <= timedelta(days=1) or self.sample_interval % second:
            raise SettingsError(f"A fleet requires a sample interval of whole seconds up to a day; got {self.sample_interval}. Correct it.")
        if self.start.utcoffset() != timedelta(0) or self.start.microsecond:
            raise SettingsError(
                f"A fleet requires a start in UTC at a whole second; got {self.start.isoformat()}. Give it as 2026-01-01T00:00:00Z."
            )
        if not self.metrics or len(set(self.metrics)) < len(self.metrics) or not set(self.metrics) <= set(METRICS):
            raise SettingsError(
                f"A fleet requires distinct metrics of {', '.join(METRICS)}; got {', '.join(self.metrics) or 'none'}. Correct them."
            )
        if self.allowed_lateness < second or self.allowed_lateness % second:
            raise SettingsError(
                f"A fleet requires an allowed lateness of whole seconds, one at least; got {self.allowed_lateness}. Correct it."
            )
        self._check_faults()

    def _check_faults(self) -> None:
        """Refuse rates that do not fit into the slots.

        Raises:
            SettingsError: naming the rates.
        """
        rates = asdict(self.faults)
        busy = max(sum(rates[name] for name in EVENT_FAULTS + LIVE_FAULTS), *(rates[name] for name in SIGNAL_FAULTS)) * self.slot_ticks
        if min(rates.values()) < 0 or busy > 1:
            raise SettingsError(
                f"Faults require rates >= 0 that sum to at most 1/{self.slot_ticks} = {1 / self.slot_ticks:.4f} "
                f"(one incident in {self.slot_ticks} ticks of a device); got {rates}. Lower them."
            )
        if self.faults.out_of_order and len(self.metrics) == 1 and self.sample_interval > self.allowed_lateness / 2:
            raise SettingsError(
                "The fault out_of_order requires two metrics, or a sample interval of at most half the allowed lateness, "
                f"to overtake a reading in time; got {self.metrics[0]} every {self.sample_interval}. Add a metric or switch the fault off."
            )

        if (self.faults.clock_reset or self.faults.restamped) and not self.half_interval_us:
            raise SettingsError(
                "The faults clock_reset and restamped require a sample interval of at least 2 s, for stamps between those of the grid; "
                f"got {self.sample_interval}. Take a longer one or switch them off."
            )

    @property
    def num_ticks(self) -> int:
        """Readings of one clean series."""
        return timedelta(days=self.days) // self.sample_interval

    @property
    def slot_ticks(self) -> int:
        """Ticks of a device that hold at most one fault: a day of hours, and room for what arrives later than is allowed."""
        longest = self.allowed_lateness + self.idle_timeout * bool(self.faults.outage)
        return 24 + 2 * -(-longest // self.sample_interval)

    @property
    def interval_us(self) -> int:
        """Spacing of the readings in microseconds."""
        return self.sample_interval // MICROSECOND

    @property
    def half_interval_us(self) -> int:
        """Half the spacing in microseconds, in whole seconds, as lines write stamps."""
        return self.interval_us // 2_000_000 * 1_000_000

    @property
    def idle_timeout_us(self) -> int:
        """The idle timeout in microseconds, as ingest takes it: the allowed lateness at least."""
        return max(self.idle_timeout, self.allowed_lateness) // MICROSECOND

    @property
    def lateness_us(self) -> int:
        """The allowed lateness in microseconds."""
        return self.allowed_lateness // MICROSECOND

    @property
    def start_us(self) -> int:
        """The first stamp in microseconds since 1970."""
        return (self.start - EPOCH) // MICROSECOND

    @property
    def max_delay_us(self) -> int:
        """The network's longest normal delay in microseconds: far below both the interval and the allowed lateness."""
        return min(MAX_NETWORK_DELAY, self.sample_interval / 10, self.allowed_lateness / 10) // MICROSECOND

    def device_id(self, device: int) -> str:
        """Return the name of the device with this number."""
        return f"sensor-{device + 1:04d}"

    def streams(self, device: int) -> Sequence[np.random.SeedSequence]:
        """Return a device's own random streams: signal, level shifts, network, faults."""
        return np.random.SeedSequence(self.seed, spawn_key=(1 + device,)).spawn(4)
