"""The regression's weights give way as far as validation can tell from chance, and no further."""

import pytest
import torch
from torch import Tensor

from models.config import ForecasterConfig, NetworkConfig
from models.forecaster import CausalForecaster
from models.training import ForecasterTraining
from pipeline.prepare.splits import Split
from pipeline.settings import TrainSettings
from pipeline.train.datamodule import SegmentDataModule
from pipeline.train.shrink import least_share, losses_of_groups, shrink
from tests.laws.panels import daily_cycle, hourly_panel

CONFIG = ForecasterConfig(
    sample_interval_s=3600, horizon=6, context_length=48, seasons=(24,), network=NetworkConfig(hidden_size=4, num_layers=1)
)
SETTINGS = TrainSettings(horizon=6, segment_length=48, burn_in=8)


def losses(**sums: list[float]) -> dict[float, Tensor]:
    return {float(name[1:]) / 100: torch.tensor(groups, dtype=torch.float64) for name, groups in sums.items()}


@pytest.mark.parametrize(
    ("gains", "share"),
    [
        ([0.10, 0.11, 0.09, 0.10], 1.0),  # every group gains: no doubt
        ([0.30, -0.20, 0.25, -0.25], 0.0),  # as much is lost as gained
        ([0.10], 1.0),  # nothing to tell chance from
    ],
)
def test_a_gain_that_may_be_chance_is_not_taken(gains: list[float], share: float) -> None:
    """Shown to fail by the least loss alone."""
    best = torch.ones(len(gains), dtype=torch.float64)
    assert least_share({0.0: best + torch.tensor(gains, dtype=torch.float64), 1.0: best}) == share


def test_a_little_less_than_the_best_will_do() -> None:
    """Shown to fail by going through the shares from the largest."""
    assert least_share(losses(s0=[3.0, 3.1, 2.9], s50=[1.1, 0.9, 1.05], s75=[1.0, 1.0, 1.0], s100=[1.2, 1.3, 1.2])) == 0.5


def trained() -> tuple[ForecasterTraining, SegmentDataModule]:
    panel = hourly_panel(daily_cycle(40 * 24, 2))
    data = SegmentDataModule(panel, Split(panel.label(0, 20 * 24), panel.label(0, 30 * 24)), CONFIG, SETTINGS)
    torch.manual_seed(0)
    return ForecasterTraining(CausalForecaster(CONFIG), learning_rate=1e-3, weight_decay=0.0), data


def test_the_groups_make_up_the_validation_loss() -> None:
    """Shown to fail by dividing each group by its own number of targets."""
    module, data = trained()
    with torch.no_grad():
        groups_G = losses_of_groups(module, data.validation)
        assert len(groups_G) == 10 * 24 // CONFIG.horizon
        torch.testing.assert_close(groups_G.sum(), module.loss(module.averaged, data.validation).double(), rtol=1e-5, atol=0)
        brief = data.validation._replace(
            origins_O=data.validation.origins_O[:5],
            target_OBH=data.validation.target_OBH[:5],
            observed_OBH=data.validation.observed_OBH[:5],
        )
        assert len(losses_of_groups(module, brief)) == 2  # the series


def test_weights_that_validate_worse_than_the_start_are_left_behind() -> None:
    """Shown to fail by returning the best epoch's."""
    module, data = trained()
    start = {name: value.clone() for name, value in module.averaged.state_dict().items()}
    worse = {name: value + 0.5 * torch.randn_like(value) for name, value in start.items()}
    kept = shrink(module, start, worse, data.validation)
    torch.testing.assert_close(kept, start)
