"""The cells of a study differ in depth and wiring, and in nothing that counts parameters."""

import pytest

from models.config import ForecasterConfig, NetworkConfig
from pipeline.study.cells import DEPTHS, WIRINGS, matched_cells, num_parameters

CONFIG = ForecasterConfig(sample_interval_s=3600, horizon=24, context_length=168, seasons=(24, 168))


def test_every_cell_has_the_parameters_of_depth_2_at_the_configured_width() -> None:
    """Shown to fail by the same width for every depth: six layers then have 2.3 times the parameters."""
    target = num_parameters(CONFIG)
    cells = matched_cells(CONFIG)
    assert [(cell.wiring, cell.depth) for cell in cells] == [(wiring, depth) for wiring in WIRINGS for depth in DEPTHS]
    assert all(cell.num_parameters == pytest.approx(target, rel=0.04) for cell in cells)
    assert [cell.hidden_size for cell in cells if cell.name == "residual-2"] == [64]


def test_no_width_comes_nearer() -> None:
    """Shown to fail by taking the widest below the target."""
    target = num_parameters(CONFIG)
    (cell,) = [cell for cell in matched_cells(CONFIG, depths=(3,)) if cell.wiring == "plain"]
    for width in (cell.hidden_size - 1, cell.hidden_size + 1):
        network = NetworkConfig(num_layers=3, hidden_size=width, wiring="plain")
        other = ForecasterConfig(sample_interval_s=3600, horizon=24, context_length=168, seasons=(24, 168), network=network)
        assert abs(num_parameters(other) - target) >= abs(cell.num_parameters - target)
