"""The time scale of each layer: how far back a change of one input still moves its state.

Called by `pipeline.study.finals`. One reading is moved by a standard deviation, at one tick; the inputs of all later ticks stay as they
were, so that what is measured is the memory of the layers, and not that of the normaliser or of the seasonal inputs, which bring the
same reading up again. In float64: a hundredth of a small change is below the noise of float32.

Letters: T ticks, B series, F features, L layers, D hidden, P changes, each at its own tick, N = P * B, K lags.
"""

from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.batch import Sequence
from models.forecaster import CausalForecaster
from pipeline.prepare.sequences import Panel
from pipeline.train.datamodule import encode_history

Floats = NDArray[np.float64]
MAX_SERIES, MAX_CHANGES = 8, 16
MAX_LAG = 672  # ticks; four weeks of hours
FADED, GONE = float(np.exp(-1)), 0.01


class LayerMemory(NamedTuple):
    """How the states of a stack forget.

    Attributes:
        response_LK: change of (h, c) of each layer, k ticks after the input changed, over the largest; median over series and changes.
        faded_L: ticks until the change stays below 1/e of the largest; median over series and changes, at most K.
        gone_L: likewise below 1 %.
    """

    response_LK: Floats
    faded_L: Floats
    gone_L: Floats


def layer_memory(forecaster: CausalForecaster, panel: Panel) -> LayerMemory:
    """Change one input of a panel at some ticks and follow the state of every layer.

    Args:
        forecaster: of any dtype; it is left as it is.
        panel: history; its longest series are read, each from its first tick.
    """
    forecaster, panel = deepcopy(forecaster).double().eval(), panel.columns(_longest(panel))
    num_ticks = int(panel.length_B.min())
    num_lags = min(MAX_LAG, num_ticks // 4)
    ticks_P = torch.from_numpy(np.unique(np.linspace(num_ticks // 2, num_ticks - num_lags, MAX_CHANGES).astype(np.int64)))
    with torch.inference_mode():
        sequence = encode_history(panel, forecaster.config, pad=0, pad_after=0).sequence
        changed_PBF = torch.stack(
            [forecaster.features(_moved(sequence, tick, forecaster.config.history_length))[tick] for tick in ticks_P.tolist()]
        )
        distance_KLN = _distances(forecaster, forecaster.features(sequence), changed_PBF, ticks_P, num_lags)
    response_KLN = distance_KLN / distance_KLN.amax(dim=0)  # not at k = 0: upper layers are moved most some ticks later
    return LayerMemory(
        response_KLN.median(dim=-1).values.T.numpy(),
        ticks_above(response_KLN, FADED).median(dim=-1).values.numpy(),
        ticks_above(response_KLN, GONE).median(dim=-1).values.numpy(),
    )


def ticks_above(response_KLN: Tensor, level: float) -> Tensor:
    """Return the ticks after which a response is below a level for good (L, N), as float64."""
    after_K11 = torch.arange(1, len(response_KLN) + 1, dtype=torch.float64).reshape(-1, 1, 1)
    return torch.where(response_KLN >= level, after_K11, 0.0).amax(dim=0)


def _longest(panel: Panel) -> NDArray[np.int64]:
    """Return the columns of the longest series: the state of a short one has little to remember."""
    return np.sort(np.argsort(-panel.length_B, kind="stable")[:MAX_SERIES])


def _moved(sequence: Sequence, tick: int, reach: int) -> Sequence:
    """Return the sequence with the readings of one tick a standard deviation higher, and the statistics as they were."""
    history_RTB = sequence.history_RTB.clone()
    history_RTB[reach + tick] += sequence.scale_KTB[0, tick]
    return sequence._replace(history_RTB=history_RTB)


def _distances(forecaster: CausalForecaster, features_TBF: Tensor, changed_PBF: Tensor, ticks_P: Tensor, num_lags: int) -> Tensor:
    """Return how far apart (h, c) of each layer are with and without the change, `num_lags` ticks from the change on (K, L, N)."""
    before = _states_before(forecaster, features_TBF, ticks_P)
    without, with_change = before, before
    distances_KLN = []
    for lag in range(num_lags):
        inputs_PBF = features_TBF[ticks_P + lag]
        without = _step(forecaster, inputs_PBF, without)
        with_change = _step(forecaster, inputs_PBF if lag else changed_PBF, with_change)
        apart = [(one - other).square().sum(dim=-1) for one, other in zip(with_change, without, strict=True)]
        distances_KLN.append((apart[0] + apart[1]).sqrt())
    return torch.stack(distances_KLN)


def _step(forecaster: CausalForecaster, inputs_PBF: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    _, h_LND, c_LND = forecaster.stack(inputs_PBF.flatten(0, 1).unsqueeze(0), *state)
    return h_LND, c_LND


def _states_before(forecaster: CausalForecaster, features_TBF: Tensor, ticks_P: Tensor) -> tuple[Tensor, Tensor]:
    """Return the states of all layers before each change, side by side (L, N, D)."""
    h_LBD, c_LBD = forecaster.stack.initial_state(features_TBF.shape[1])
    done, found = 0, []
    for tick in ticks_P.tolist():
        _, h_LBD, c_LBD = forecaster.stack(features_TBF[done:tick], h_LBD, c_LBD)
        done = tick
        found.append((h_LBD, c_LBD))
    return torch.cat([h for h, _ in found], dim=1), torch.cat([c for _, c in found], dim=1)
