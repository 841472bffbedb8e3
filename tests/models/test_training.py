"""What a training learns from: targets in the units of their origin, where the origin has a unit."""

import torch

from models.batch import TrainingBatch
from models.config import ForecasterConfig
from models.forecaster import CausalForecaster
from models.training import normalised_targets


def batch_of(values_TB: torch.Tensor) -> TrainingBatch:
    """Return every tick but the last as an origin of the next."""
    num_ticks, num_series = values_TB.shape
    forecaster = CausalForecaster(ForecasterConfig(sample_interval_s=3600, horizon=1, context_length=4))
    observed_TB, time_TB = ~values_TB.isnan(), 3600 * torch.arange(num_ticks).unsqueeze(1).expand(-1, num_series)
    sequence, _ = forecaster.observe(forecaster.initial_state(num_series), values_TB, observed_TB, time_TB)
    return TrainingBatch(sequence, torch.arange(num_ticks - 1), values_TB[1:].unsqueeze(-1), observed_TB[1:].unsqueeze(-1))


def test_no_target_counts_that_its_origin_has_no_unit_for() -> None:
    """Shown to fail by counting the origins that have seen nothing but zeros: the target is then 83, as far as 1e12 scales.

    A tenth of such origins, and the outer quantiles of every series are 244,000 scales wide.
    """
    nan = float("nan")
    columns = [[0.0, 0.0, 1.0, 0.0, 2.0], [nan, 0.0, nan, 1.0, 1.0], [7.0, 7.0, 8.0, 7.0, 8.0]]
    target_OBH, counted_OBH = normalised_targets(batch_of(torch.tensor(columns, dtype=torch.float64).T), torch.float32)
    assert counted_OBH[..., 0].T.tolist() == [[False, False, True, True], [False, False, False, True], [True] * 4]
    assert float(target_OBH[counted_OBH].abs().max()) < 20
