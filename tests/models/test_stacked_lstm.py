"""The stack is the textbook wiring, and it can be stepped."""

import pytest
import torch
from torch import nn

from models.config import NetworkConfig
from models.stacked_lstm import StackedRecurrence


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_plain_stack_equals_single_layers_composed_by_hand(cell: str) -> None:
    stack = StackedRecurrence(5, NetworkConfig(wiring="plain", num_layers=3, hidden_size=7, cell=cell, dropout=0.0)).double()  # type: ignore[arg-type]
    inputs_TBF = torch.randn(11, 2, 5, dtype=torch.float64)
    composed = inputs_TBF
    for layer in stack.layers:
        composed, _ = layer(composed)
    top_TBD, _, _ = stack(inputs_TBF, *stack.initial_state(2))
    torch.testing.assert_close(top_TBD, composed, rtol=0, atol=0)


def test_plain_stack_equals_torchs_own_stack_with_the_same_weights() -> None:
    stack = StackedRecurrence(5, NetworkConfig(wiring="plain", num_layers=2, hidden_size=7, dropout=0.0)).double()
    whole = nn.LSTM(5, 7, num_layers=2).double()
    renamed = {f"{name[:-1]}{level}": w for level, layer in enumerate(stack.layers) for name, w in layer.state_dict().items()}
    whole.load_state_dict(renamed)
    inputs_TBF = torch.randn(11, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(stack(inputs_TBF, *stack.initial_state(2))[0], whole(inputs_TBF)[0])


def test_feeding_the_lower_layer_as_initial_state_is_another_function() -> None:
    stack = StackedRecurrence(5, NetworkConfig(wiring="plain", num_layers=2, hidden_size=5, dropout=0.0)).double()
    inputs_TBF = torch.randn(11, 2, 5, dtype=torch.float64)
    _, lower = stack.layers[0](inputs_TBF)
    as_state, _ = stack.layers[1](inputs_TBF, lower)
    assert not torch.allclose(stack(inputs_TBF, *stack.initial_state(2))[0], as_state)


def test_residual_stack_without_branches_is_its_embedding() -> None:
    stack = StackedRecurrence(5, NetworkConfig(num_layers=2, hidden_size=7, dropout=0.0)).double()
    with torch.no_grad():
        for parameter in stack.layers.parameters():
            parameter.zero_()
    inputs_TBF = torch.randn(3, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(stack(inputs_TBF, *stack.initial_state(2))[0], stack.norms[-1](stack.embed(inputs_TBF)))


def test_input_skips_reach_every_layer() -> None:
    skipping = StackedRecurrence(5, NetworkConfig(num_layers=3, hidden_size=7, input_skips=True))
    assert [layer.input_size for layer in skipping.layers] == [7, 12, 12]


def test_forget_gates_open_further_in_higher_layers() -> None:
    stack = StackedRecurrence(5, NetworkConfig(num_layers=3, hidden_size=64))
    biases = [float(layer.bias_hh_l0[64:128].detach().mean()) for layer in stack.layers]
    assert biases == sorted(biases)
