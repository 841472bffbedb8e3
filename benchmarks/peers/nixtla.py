"""neuralforecast's LSTM, NHITS and PatchTST: quantile losses, window scalers, one model of all series.

Each origin becomes a series of its own that ends there, and one `predict` encodes them all; nothing is refitted. Runs in the
peers' environment, called by `benchmarks.peers.run_peer`.

Letters: O origins, H horizon, Q quantile levels.
"""

import time

import numpy as np
import pandas as pd
from neuralforecast import NeuralForecast
from neuralforecast.losses.pytorch import MQLoss
from neuralforecast.models import LSTM, NHITS, PatchTST
from pytorch_lightning.callbacks import Callback

from benchmarks.peers.peer_task import Floats, PeerResult, PeerSeries, PeerTask
from benchmarks.peers.training_watch import watched

MAX_STEPS, VALIDATE_EVERY = 5_000, 50
ORIGINS_AT_ONCE = 2_048
MASK = "available_mask"

Settings = dict[str, object]


def nf_lstm(task: PeerTask) -> PeerResult:
    """Run the LSTM with its default decoder, the library's sizes, and its default window scaler."""
    sizes = {"encoder_hidden_size": 128, "encoder_n_layers": 2, "windows_batch_size": 128}
    return _run(task, LSTM, {"input_size": task.recurrent_context_length, "scaler_type": "robust", **sizes})


def nf_nhits(task: PeerTask) -> PeerResult:
    """Run NHITS with the library's stacks and the window scaler of its tutorials."""
    return _run(
        task,
        NHITS,
        {"input_size": task.context_length, "scaler_type": "robust", "windows_batch_size": 256, "inference_windows_batch_size": 1024},
    )


def nf_patchtst(task: PeerTask) -> PeerResult:
    """Run PatchTST with the library's sizes and its own instance normalisation; it takes no covariates.

    Ten times the default learning rate and a sixteenth of the default windows in a step: at the default of 5,000 large steps it
    would not get anywhere within the budget on one thread.
    """
    settings: Settings = {"input_size": task.context_length, "learning_rate": 1e-3, "windows_batch_size": 64}
    return _run(task, PatchTST, settings, takes_covariates=False)


def _run(task: PeerTask, model: type, settings: Settings, *, takes_covariates: bool = True) -> PeerResult:
    """Train once and forecast every origin."""
    series = task.windowed
    future = list(task.calendar(series[0].frame.index)) if takes_covariates else []
    past = task.covariates if takes_covariates else []
    size = max(one.num_validation - one.num_train for one in series)
    whole = [one for one in series if one.num_validation - one.num_train == size]  # the library validates on the same number of all
    stride = task.validation_stride
    watch = watched(Callback, task.seconds, monitor="ptl/val_loss", max_steps=MAX_STEPS, validation_stride=stride)
    settings = {"max_steps": MAX_STEPS, "val_check_steps": VALIDATE_EVERY, **settings}
    covariates = {"hist_exog_list": past or None, "futr_exog_list": future or None}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    forecaster = NeuralForecast(
        [
            model(
                h=task.horizon,
                loss=MQLoss(quantiles=task.levels),
                random_seed=task.seed,
                callbacks=[watch],
                **settings,
                **(covariates if takes_covariates else {}),
                **quiet,
            )
        ],
        freq=task.frequency,
    )
    known = pd.concat([_rows(task, one, number, 0, one.num_validation, future) for number, one in enumerate(whole)])
    forecaster.fit(known, val_size=size)
    training_s = time.process_time() - watch.started
    started = time.process_time()
    quantiles = {one.name: _forecast(task, forecaster, one, future) for one in series}
    return PeerResult(
        quantiles=quantiles,
        library="neuralforecast",
        settings={"model": model.__name__, "loss": "MQLoss", **settings, "validation_stride": stride},
        missing="filled forward, with available_mask 0 there: out of the loss and of the window scaler",
        covariates=f"hist_exog_list {past}, futr_exog_list {future}" if takes_covariates else "the model takes none",
        training_s=training_s,
        forecasting_s=time.process_time() - started,
        cut_off=watch.cut_off,
        how=watch.how,
    )


def _rows(task: PeerTask, one: PeerSeries, number: int, begin: int, end: int, future: list[str]) -> pd.DataFrame:
    """Return some rows of a series in the library's long format."""
    part = one.filled.iloc[begin:end].astype(np.float32)
    part[MASK] = one.observed[begin:end].astype(np.float32)
    part[future] = task.calendar(part.index)[future].astype(np.float32)
    return part.assign(unique_id=number).rename_axis("ds").reset_index()


def _forecast(task: PeerTask, forecaster: NeuralForecast, one: PeerSeries, future: list[str]) -> Floats:
    """Return the quantiles `(O, H, Q)` of one series, in blocks of origins, each with the longest look-back of all models."""
    rows = _rows(task, one, 0, 0, len(one.frame), future)
    steps = pd.date_range(rows["ds"].iloc[0], periods=len(rows) + task.horizon, freq=task.offset)
    calendar = task.calendar(steps).assign(ds=steps)
    blocks = []
    for begin in range(0, one.origins.size, ORIGINS_AT_ONCE):
        origins = one.origins[begin : begin + ORIGINS_AT_ONCE]
        windows = pd.concat([rows.iloc[o + 1 - task.context_length : o + 1].assign(unique_id=k) for k, o in enumerate(origins)])
        ahead = [calendar.iloc[o + 1 : o + 1 + task.horizon].assign(unique_id=k) for k, o in enumerate(origins)]
        told = forecaster.predict(windows, futr_df=pd.concat(ahead) if future else None)
        values = told.sort_values(["unique_id", "ds"]).drop(columns=["unique_id", "ds"]).to_numpy(np.float64)
        blocks.append(values.reshape(origins.size, task.horizon, len(task.levels)))
    return np.concatenate(blocks)
