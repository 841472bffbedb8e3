"""Darts' BlockRNNModel: an LSTM of windows with quantile regression, one model of all series.

Each origin becomes a series that ends there, and one `predict` encodes them all; nothing is refitted. Runs in the peers'
environment, called by `benchmarks.peers.run_peer`.

Letters: O origins, H horizon, Q quantile levels.
"""

import time

import numpy as np
import pandas as pd
from darts import TimeSeries
from darts.models import BlockRNNModel
from darts.utils.likelihood_models import QuantileRegression
from pytorch_lightning.callbacks import Callback

from benchmarks.peers.peer_task import Floats, PeerResult, PeerSeries, PeerTask
from benchmarks.peers.training_watch import watched

STEPS_IN_EPOCH, MAX_EPOCHS = 100, 100  # an epoch of every window of ETTh1 would outlast the budget before its first validation
MODEL = {"model": "LSTM", "hidden_dim": 64, "n_rnn_layers": 2, "dropout": 0.1, "batch_size": 64, "use_reversible_instance_norm": True}

Inputs = dict[str, list[TimeSeries] | None]


def darts_block_rnn(task: PeerTask) -> PeerResult:
    """Run BlockRNNModel with its reversible instance normalisation, two layers, and the calendar as future covariates."""
    series = task.windowed
    max_steps = STEPS_IN_EPOCH * MAX_EPOCHS
    watch = watched(Callback, task.seconds, monitor="val_loss", max_steps=max_steps)
    model = BlockRNNModel(
        input_chunk_length=task.recurrent_context_length,
        output_chunk_length=task.horizon,
        likelihood=QuantileRegression(task.levels),
        n_epochs=MAX_EPOCHS,
        random_state=task.seed,
        pl_trainer_kwargs={
            "accelerator": "cpu",
            "callbacks": [watch],
            "limit_train_batches": STEPS_IN_EPOCH,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": False,
        },
        **MODEL,
    )
    train = [_inputs(task, one, 0, one.num_train) for one in series]
    chosen = [_inputs(task, one, o + 1 - task.recurrent_context_length, o + 1 + task.horizon) for one, o in task.validation_windows(series)]
    validation = {f"val_{name}": part for name, part in _joined(chosen).items()} if chosen else {}
    model.fit(**_joined(train), **validation, verbose=False)
    training_s = time.process_time() - watch.started
    started = time.process_time()
    quantiles = {one.name: _forecast(task, model, one) for one in series}
    return PeerResult(
        quantiles=quantiles,
        library="darts",
        settings={
            **MODEL,
            "likelihood": "QuantileRegression",
            "input_chunk_length": task.recurrent_context_length,
            "steps_in_epoch": STEPS_IN_EPOCH,
        },
        missing="filled forward, with sample_weight 0 there: out of the loss",
        covariates=f"past_covariates {task.covariates}, future_covariates: phases of {task.periods}",
        training_s=training_s,
        forecasting_s=time.process_time() - started,
        cut_off=watch.cut_off,
        how=watch.how,
    )


def _inputs(task: PeerTask, one: PeerSeries, begin: int, end: int) -> dict[str, TimeSeries]:
    """Return what the model reads of some rows of a series, and the weights of its targets."""
    part, observed = one.filled.iloc[begin:end].astype(np.float32), one.observed[begin:end]
    inputs = {
        "series": _series(part[["y"]], task),
        "sample_weight": _series(pd.DataFrame({"y": observed.astype(np.float32)}, part.index), task),
    }
    if task.covariates:
        inputs["past_covariates"] = _series(part[task.covariates], task)
    if task.periods:
        inputs["future_covariates"] = _series(task.calendar(part.index).astype(np.float32), task)
    return inputs


def _series(frame: pd.DataFrame, task: PeerTask) -> TimeSeries:
    return TimeSeries.from_dataframe(frame, freq=task.frequency)


def _joined(inputs: list[dict[str, TimeSeries]]) -> Inputs:
    """Turn inputs of each series into a list of series of each input."""
    return {name: [one[name] for one in inputs] for name in inputs[0]}


def _forecast(task: PeerTask, model: BlockRNNModel, one: PeerSeries) -> Floats:
    """Return the quantiles `(O, H, Q)` of one series."""
    context = task.recurrent_context_length
    inputs = _joined([_inputs(task, one, o + 1 - context, o + 1) for o in one.origins])
    del inputs["sample_weight"]
    if task.periods:
        times = pd.date_range(one.frame.index[0], periods=len(one.frame) + task.horizon, freq=task.offset)
        calendar = task.calendar(times).astype(np.float32)
        inputs["future_covariates"] = [_series(calendar.iloc[o + 1 - context : o + 1 + task.horizon], task) for o in one.origins]
    told = model.predict(task.horizon, **inputs, predict_likelihood_parameters=True, batch_size=1_024, verbose=False)
    return np.stack([forecast.values() for forecast in told]).astype(np.float64)
