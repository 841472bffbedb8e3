"""Batches of segments, sliced from a panel on demand: every tick is an origin, and no window is ever materialised.

The statistics of the causal normaliser are computed once over the whole history (they never look ahead), so a segment
that starts in the middle starts with what the live engine would know there. Called by `pipeline.train.fit`;
the encoded history is read by `pipeline.study.memory` too, and the batches by `pipeline.verify.training`.

Letters as in `models.batch`; S segments of an epoch.
"""

from collections.abc import Iterator
from typing import NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from models.batch import CovariateInputs, Sequence, TrainingBatch
from models.config import ForecasterConfig
from models.forecaster import CausalForecaster
from pipeline.errors import DataError
from pipeline.prepare.covariates import require_names, tensors
from pipeline.prepare.sequences import Panel
from pipeline.prepare.splits import Split
from pipeline.settings import TrainSettings

OUTPUTS_PER_BATCH = 500_000  # quantiles decoded at once: neighbouring origins say much the same, and at long horizons cost the most
VALIDATION_OUTPUTS = 10_000_000
VALIDATION_SERIES = 256
FEWEST_TICKS = 2  # an origin and a target; steps that no target reaches keep their anchors
EPOCH_BATCHES, MOST_BATCHES = 20, 200  # between two looks at the validation period, however small or large the fleet is


class History(NamedTuple):
    """Everything known at every tick of a panel, padded in front so that a segment may start before the first reading."""

    sequence: Sequence
    pad: int
    first_B: Tensor
    """First row with an observation, `length_B` where there is none (B,)."""
    length_B: Tensor
    """Rows up to which targets may be read (B,)."""


def encode_history(panel: Panel, config: ForecasterConfig, *, pad: int, pad_after: int) -> History:
    """Run the normaliser over a panel once.

    Args:
        panel: the series.
        config: of the forecaster that will read the history.
        pad: empty ticks in front.
        pad_after: empty ticks behind.

    Raises:
        DataError: when nothing in the panel was observed, or its covariates are not those of the forecaster.
    """
    require_names(panel.covariates, config.covariate_names)
    around = ((pad, pad_after), (0, 0))
    observed_TB = np.pad(panel.observed_TB, around)
    if not observed_TB.any():
        raise DataError("Training requires observed values; got a panel of gaps. Ingest readings of the training period.")
    time_TB = panel.labels_us(np.arange(-pad, len(panel.values_TB) + pad_after)[:, None]) // 1_000_000
    with torch.no_grad():
        observer = CausalForecaster(config)
        sequence, _ = observer.observe(
            observer.initial_state(len(panel.series_ids)),
            torch.from_numpy(np.pad(np.nan_to_num(panel.values_TB), around)),
            torch.from_numpy(observed_TB),
            torch.from_numpy(time_TB),
            tensors(panel.covariates, -pad, len(panel.values_TB) + pad_after, config.horizon),
        )
    length_B = panel.length_B + pad
    first_B = np.where(observed_TB.any(0), observed_TB.argmax(0), length_B)
    return History(sequence, pad, torch.from_numpy(first_B), torch.from_numpy(length_B))


def slice_batch(
    history: History, config: ForecasterConfig, starts_S: Tensor, columns_S: Tensor, num_ticks: int, origins_O: Tensor
) -> TrainingBatch:
    """Cut S segments of `num_ticks` ticks out of a history, with the targets of their origins.

    Args:
        history: of all series.
        config: of the forecaster.
        starts_S: first row of each segment.
        columns_S: its series.
        num_ticks: ticks of each segment.
        origins_O: ticks of the segments that issue forecasts.
    """
    whole, reach = history.sequence, config.history_length
    rows_TS = torch.arange(num_ticks).unsqueeze(1) + starts_S
    past_RTS = torch.arange(reach + num_ticks).unsqueeze(1) + starts_S
    sequence = Sequence(
        history_RTB=whole.history_RTB[past_RTS, columns_S],
        mean_KTB=whole.mean_KTB[:, rows_TS, columns_S],
        scale_KTB=whole.scale_KTB[:, rows_TS, columns_S],
        observed_TB=whole.observed_TB[rows_TS, columns_S],
        since_TB=whole.since_TB[rows_TS, columns_S],
        age_TB=whole.age_TB[rows_TS, columns_S],
        time_TB=whole.time_TB[rows_TS, columns_S],
        covariates=_slice_covariates(whole.covariates, starts_S, columns_S, num_ticks, config.horizon),
    )
    target_OSH = origins_O[:, None, None] + starts_S[:, None] + torch.arange(1, config.horizon + 1)
    exists_OSH = target_OSH < history.length_B[columns_S].unsqueeze(-1)
    safe_OSH = target_OSH.clamp(max=whole.observed_TB.shape[0] - 1)
    columns_S1 = columns_S.unsqueeze(-1)
    return TrainingBatch(
        sequence=sequence,
        origins_O=origins_O,
        target_OBH=whole.history_RTB[reach + safe_OSH, columns_S1],
        observed_OBH=whole.observed_TB[safe_OSH, columns_S1] & exists_OSH,
    )


def _slice_covariates(
    whole: CovariateInputs | None, starts_S: Tensor, columns_S: Tensor, num_ticks: int, horizon: int
) -> CovariateInputs | None:
    if whole is None:
        return None
    rows_TS = torch.arange(num_ticks + horizon).unsqueeze(1) + starts_S  # the plan of the last tick reaches a horizon further
    return CovariateInputs(
        past_TBF=whole.past_TBF[rows_TS[:num_ticks], columns_S],
        future_SBF=whole.future_SBF[rows_TS, columns_S],
        static_BJ=whole.static_BJ[columns_S],
    )


class Segments(IterableDataset[TrainingBatch]):
    """An epoch of random segments, each with a random start and series: enough to cover every tick once on average, up to a limit."""

    def __init__(self, history: History, config: ForecasterConfig, settings: TrainSettings) -> None:
        super().__init__()
        self.history, self.config, self.settings = history, config, settings
        self.scored_B = (history.length_B - history.first_B - 1).clamp(min=0)
        if not self.scored_B.any():
            raise DataError(
                "Training requires a series with a reading before its last tick of the training period; got none. Give it more history."
            )
        self.scored_ticks = int(min(settings.segment_length, int(self.scored_B.max())))
        outputs = settings.batch_size * config.horizon * len(config.quantile_levels)
        self.num_origins = max(4, min(self.scored_ticks, OUTPUTS_PER_BATCH // outputs))
        covering = -(-int(self.scored_B.sum()) // (self.scored_ticks * settings.batch_size))
        self.num_batches = min(max(EPOCH_BATCHES, covering), MOST_BATCHES)
        self.generator = torch.Generator().manual_seed(settings.seed)

    def __len__(self) -> int:
        """Return batches per epoch."""
        return self.num_batches

    def __iter__(self) -> Iterator[TrainingBatch]:
        """Yield one epoch of batches; each epoch draws anew."""
        burn_in, size = self.settings.burn_in, self.settings.batch_size
        for _ in range(self.num_batches):
            columns_S = torch.multinomial(self.scored_B.double(), size, replacement=True, generator=self.generator)
            # A segment may start up to half its length before the series and end as much after: border ticks count in full.
            room_S = (self.scored_B[columns_S] - self.scored_ticks).clamp(min=0) + self.scored_ticks // 2
            shift_S = (torch.rand(size, generator=self.generator) * (room_S + self.scored_ticks // 2 + 1)).long()
            starts_S = self.history.first_B[columns_S] - burn_in - self.scored_ticks // 2 + shift_S
            chosen_O = torch.randperm(self.scored_ticks, generator=self.generator)[: self.num_origins].sort().values
            yield slice_batch(self.history, self.config, starts_S, columns_S, burn_in + self.scored_ticks, burn_in + chosen_O)


class SegmentDataModule(pl.LightningDataModule):
    """Training segments up to the train border, and one long validation stretch after it."""

    def __init__(self, panel: Panel, split: Split, config: ForecasterConfig, settings: TrainSettings) -> None:
        super().__init__()
        pad = settings.burn_in + settings.segment_length
        past = panel.first_rows(split.train_rows(panel))
        if not past.series_ids or int(past.length_B.max()) < FEWEST_TICKS:
            raise DataError(
                f"Training requires a series of at least {FEWEST_TICKS} ticks before {split.train_end:%Y-%m-%d %H:%M}; "
                f"got {int(past.length_B.max()) if past.series_ids else 0}. Give it more history, or a later border."
            )
        self.static_BJ = None if past.covariates is None else torch.from_numpy(past.covariates.static_BJ)
        self.segments = Segments(encode_history(past, config, pad=pad, pad_after=pad), config, settings)
        self.validation = _validation_batch(panel.first_rows(split.validation_rows(panel)), split, config, settings)

    def train_dataloader(self) -> DataLoader[TrainingBatch]:
        """Return the segments, already batched."""
        return DataLoader(self.segments, batch_size=None, num_workers=0)

    def val_dataloader(self) -> DataLoader[TrainingBatch]:
        """Return the one validation batch."""
        return DataLoader([self.validation], batch_size=None, num_workers=0)  # type: ignore[arg-type]


def _validation_batch(panel: Panel, split: Split, config: ForecasterConfig, settings: TrainSettings) -> TrainingBatch:
    """Return origins from the train border on, strided to a bounded number, of series with a target there; a warm-up precedes the first."""
    border_B = split.train_rows(panel)  # the tick at the border is the first origin
    after_TB = np.arange(len(panel.values_TB))[:, None] >= np.maximum(border_B, 1)
    choosing = np.flatnonzero((panel.observed_TB & after_TB).any(axis=0))
    if not len(choosing):
        raise DataError(
            f"Validation requires readings between {split.train_end:%Y-%m-%d %H:%M} and {split.validation_end:%Y-%m-%d %H:%M}; "
            "got none. Move the borders, or raise validation_fraction."
        )
    keep = choosing[np.linspace(0, len(choosing) - 1, min(VALIDATION_SERIES, len(choosing))).round().astype(int)]
    warm_up = max(settings.burn_in, min(512, 2 * config.history_length))
    columns_S = torch.from_numpy(keep)
    border_S = torch.from_numpy(border_B)[columns_S]
    num_origins = int((torch.from_numpy(panel.length_B)[columns_S] - border_S).max())
    outputs = num_origins * len(columns_S) * config.horizon * len(config.quantile_levels)
    origins_O = warm_up + torch.arange(0, num_origins, max(1, -(-outputs // VALIDATION_OUTPUTS)))
    history = encode_history(panel, config, pad=warm_up, pad_after=num_origins)
    return slice_batch(history, config, (border_S - 1).clamp(min=0), columns_S, warm_up + num_origins, origins_O)
