"""The textbook family: stacks are what the textbook says, forecasts read no bidirectional layer, labels are learnt."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.config import NetworkConfig
from models.offline import RecurrentLayers, SequenceClassifier, WindowForecaster, minimise
from models.stacked_lstm import StackedRecurrence
from pipeline.ingest.fleet import FaultSpec, FleetSpec
from pipeline.ingest.signals import simulate_signals


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_stack_is_single_layers_whose_hidden_sequences_are_handed_up(cell: str) -> None:
    """Shown to fail by giving every layer the window itself."""
    stack = RecurrentLayers(7, 7, num_layers=3, cell=cell).double()  # type: ignore[arg-type]
    window_TBF = torch.randn(11, 2, 7, dtype=torch.float64)
    by_hand = window_TBF
    for layer in stack.layers:
        single = type(layer)(7, 7).double()
        single.load_state_dict(layer.state_dict())
        by_hand, _ = single(by_hand)
    torch.testing.assert_close(stack(window_TBF), by_hand, rtol=0, atol=1e-10)


def test_a_stack_stepped_by_hand_reads_h_of_the_layer_below_at_the_same_tick() -> None:
    """Shown to fail by stepping the upper layer with the hidden state of the tick before."""
    stack = RecurrentLayers(3, 5, num_layers=2).double()
    window_TBF = torch.randn(9, 2, 3, dtype=torch.float64)
    top_TBD = stack(window_TBF)
    states = [(torch.zeros(1, 2, 5, dtype=torch.float64), torch.zeros(1, 2, 5, dtype=torch.float64)) for _ in stack.layers]
    for tick in range(9):
        hidden_1BD = window_TBF[tick : tick + 1]
        for level, layer in enumerate(stack.layers):
            hidden_1BD, states[level] = layer(hidden_1BD, states[level])
        torch.testing.assert_close(hidden_1BD[0], top_TBD[tick], rtol=0, atol=1e-10)


def served_stack() -> tuple[nn.ModuleList, Callable[[Tensor], Tensor]]:
    """Return the layers of the forecaster's own stack in its plain wiring, and the stack as a function of its inputs."""
    stack = StackedRecurrence(5, NetworkConfig(wiring="plain", num_layers=2, hidden_size=5, dropout=0.0)).double()
    return stack.layers, lambda inputs_TBF: stack(inputs_TBF, *stack.initial_state(2))[0]


def textbook_stack() -> tuple[nn.ModuleList, Callable[[Tensor], Tensor]]:
    """Return the same of `RecurrentLayers`."""
    stack = RecurrentLayers(5, 5, num_layers=2).double()
    return stack.layers, stack


@pytest.mark.parametrize("stack", [served_stack, textbook_stack])
def test_the_lower_layer_as_initial_state_of_the_upper_is_another_function(
    stack: Callable[[], tuple[nn.ModuleList, Callable[[Tensor], Tensor]]],
) -> None:
    """Shown to fail by giving the upper layer the lower one's outputs and a state of zero."""
    torch.manual_seed(0)
    layers, stacked = stack()
    window_TBF = torch.randn(11, 2, 5, dtype=torch.float64)
    _, lower_state = layers[0](window_TBF)
    as_state_TBD, _ = layers[1](window_TBF, lower_state)
    difference = (stacked(window_TBF) - as_state_TBD).norm() / as_state_TBD.norm()
    assert difference > 0.2


def test_a_bidirectional_layer_equals_one_layer_each_way() -> None:
    """Shown to fail by not turning the backward layer's output round again."""
    layers = RecurrentLayers(3, 4, bidirectional=True).double()
    one_way = [nn.LSTM(3, 4).double() for _ in range(2)]
    weights = layers.layers[0].state_dict()
    one_way[0].load_state_dict({name: value for name, value in weights.items() if not name.endswith("_reverse")})
    one_way[1].load_state_dict({name.removesuffix("_reverse"): value for name, value in weights.items() if name.endswith("_reverse")})
    window_TBF = torch.randn(9, 2, 3, dtype=torch.float64)
    both_TBE = torch.cat([one_way[0](window_TBF)[0], one_way[1](window_TBF.flip(0))[0].flip(0)], dim=-1)
    torch.testing.assert_close(layers(window_TBF), both_TBE, rtol=0, atol=1e-10)
    ends_BE = torch.cat([both_TBE[-1, :, :4], both_TBE[0, :, 4:]], dim=-1)
    torch.testing.assert_close(layers.summary(window_TBF), ends_BE, rtol=0, atol=1e-10)


@pytest.mark.parametrize("wrong", [{"num_layers": 0}, {"hidden_size": 0}, {"cell": "rnn"}])
def test_impossible_layers_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="Recurrent layers require"):
        RecurrentLayers(**{"num_features": 3, "hidden_size": 4, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"num_layers": 2, "cell": "gru"}], ids=str)
def test_a_window_forecaster_learns_to_continue_a_wave(options: dict[str, object]) -> None:
    """Shown to fail by taking the first tick's hidden state in place of the last's."""
    torch.manual_seed(0)
    forecaster = WindowForecaster(RecurrentLayers(1, 16, **options), horizon=6)  # type: ignore[arg-type]

    def loss() -> Tensor:
        phase_B = 6.28 * torch.rand(16)
        wave_TB = (0.5 * torch.arange(30).unsqueeze(1) + phase_B).sin()
        return (forecaster(wave_TB[:24].unsqueeze(-1)) - wave_TB[24:].T).square().mean()

    assert minimise(forecaster, loss, num_steps=80, learning_rate=3e-2) < 0.05  # of a variance of 0.5


def level_shifts() -> tuple[Tensor, Tensor]:
    """Return windows (T, B, 1) of 24 hours of simulated temperature and whether the sensor's level shifted in each (B,)."""
    spec = FleetSpec(num_devices=12, days=90, metrics=("temperature",), faults=FaultSpec.only("level_shift", rate=0.02))
    signals = simulate_signals(spec)
    values_NT = torch.from_numpy(signals.values[:, 0].reshape(-1, 24))
    day_of_shift_N = signals.changes["device"].to_numpy() * 90 + signals.changes["tick"].to_numpy() // 24
    labels_N = torch.zeros(len(values_NT), dtype=torch.long)
    labels_N[torch.from_numpy(np.unique(day_of_shift_N))] = 1
    return (values_NT - values_NT.mean(1, keepdim=True)).T.unsqueeze(-1).float(), labels_N


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_classifier_beats_the_majority_class_on_devices_it_has_not_seen(bidirectional: bool) -> None:
    """Shown to fail by shuffling the labels."""
    windows_TBF, labels_B = level_shifts()
    seen = slice(0, 720)  # eight devices of twelve
    unseen = slice(720, None)
    torch.manual_seed(0)
    classifier = SequenceClassifier(RecurrentLayers(1, 16, bidirectional=bidirectional), num_classes=2)

    def loss() -> Tensor:
        some = torch.randint(seen.stop, (64,))
        return nn.functional.cross_entropy(classifier(windows_TBF[:, some]), labels_B[some])

    minimise(classifier, loss, num_steps=300, learning_rate=1e-2)
    right = (classifier(windows_TBF[:, unseen]).argmax(1) == labels_B[unseen]).double().mean()
    majority = max(labels_B[unseen].double().mean(), 1 - labels_B[unseen].double().mean())
    assert right > majority + 0.05, (float(right), float(majority))


def test_the_weights_with_the_lowest_validation_loss_are_kept_the_first_ones_included() -> None:
    """Shown to fail by keeping the last weights."""
    module = nn.Linear(1, 1, bias=False)
    first = module.weight.detach().clone()
    best = minimise(module, lambda: -module.weight.sum(), num_steps=20, validate=lambda: float(module.weight.detach()), validate_every=5)
    torch.testing.assert_close(module.weight.detach(), first)
    assert best == pytest.approx(float(first))
