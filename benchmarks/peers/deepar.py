"""GluonTS' DeepAR: an autoregressive LSTM with a Student-t output, sampled; one model of all series, which it tells apart.

Each origin becomes a series that ends there; nothing is refitted. Runs in the peers' environment, called by
`benchmarks.peers.run_peer`.

Letters: O origins, H horizon, Q quantile levels.
"""

import tempfile
import time

import numpy as np
import pandas as pd
from gluonts.dataset.common import ListDataset
from gluonts.time_feature import TimeFeature, time_features_from_frequency_str
from gluonts.torch.model.deepar import DeepAREstimator
from gluonts.transform import ExpectedNumInstanceSampler
from lightning.pytorch import Callback, seed_everything

from benchmarks.peers.peer_task import DAY, WEEK, YEAR, PeerResult, PeerSeries, PeerTask
from benchmarks.peers.training_watch import TrainingWatch, watched

NUM_SAMPLES = 100  # the library's default
BATCHES_IN_EPOCH, MAX_EPOCHS, BATCH_SIZE = 50, 100, 32  # the library's defaults
WINDOWS_IN_PASS = 64  # windows drawn in one pass through all series: the default, one for each, repeats few long series too often
PERIODS = {  # of the library's time features, by the name of the function
    "second_of_minute": DAY / 1440,
    "minute_of_hour": DAY / 24,
    "hour_of_day": DAY,
    "day_of_week": WEEK,
    "day_of_month": YEAR / 12,
    "day_of_year": YEAR,
    "week_of_year": YEAR,
    "month_of_year": YEAR,
}

Entry = dict[str, object]


def gluonts_deepar(task: PeerTask) -> PeerResult:
    """Run DeepAR with the library's sizes, lags and time features, and two horizons or a week of hours of unrolled context."""
    seed_everything(task.seed)
    series = task.windowed
    numbers = {one.name: number for number, one in enumerate(series)}
    frequency = task.frequency.replace("MS", "M")  # the library's periods have no beginning or end
    watch = watched(Callback, task.seconds, monitor="val_loss", max_steps=BATCHES_IN_EPOCH * MAX_EPOCHS)
    with tempfile.TemporaryDirectory() as folder:
        estimator = _estimator(task, frequency, watch, folder)
        train = [_entry(one, numbers, one.num_train) for one in series]
        chosen = [_entry(one, numbers, origin + 1 + task.horizon) for one, origin in task.validation_windows(series)]
        validation = ListDataset(chosen, frequency) if chosen else None
        predictor = estimator.train(ListDataset(train, frequency), validation, cache_data=True)
    training_s = time.process_time() - watch.started
    started = time.process_time()
    quantiles = {}
    for one in series:
        entries = ListDataset([_entry(one, numbers, origin + 1) for origin in one.origins], frequency)
        told = predictor.predict(entries, num_samples=NUM_SAMPLES)
        quantiles[one.name] = np.stack([np.quantile(forecast.samples, task.levels, axis=0).T for forecast in told]).astype(np.float64)
    return PeerResult(
        quantiles=quantiles,
        library="gluonts",
        settings={
            "context_length": estimator.context_length,
            "num_layers": estimator.num_layers,
            "hidden_size": estimator.hidden_size,
            "samples": NUM_SAMPLES,
            "time_features": [feature.__name__ for feature in estimator.time_features],
        },
        missing="NaN, which the library masks and imputes itself",
        covariates="none: DeepAR takes no covariates known up to the origin only; lags and calendar are its own",
        training_s=training_s,
        forecasting_s=time.process_time() - started,
        cut_off=watch.cut_off,
        how=watch.how,
    )


def _estimator(task: PeerTask, frequency: str, watch: TrainingWatch, folder: str) -> DeepAREstimator:
    """Return the library's estimator with its own sizes and lags; it leaves its weights in the folder."""
    return DeepAREstimator(
        freq=frequency,
        prediction_length=task.horizon,
        context_length=min(max(2 * task.horizon, min(task.season * 7, 168)), task.context_length),
        num_feat_static_cat=1,
        cardinality=[len(task.series)],
        num_parallel_samples=NUM_SAMPLES,
        batch_size=BATCH_SIZE,
        num_batches_per_epoch=BATCHES_IN_EPOCH,
        train_sampler=ExpectedNumInstanceSampler(num_instances=max(WINDOWS_IN_PASS / len(task.series), 1.0), min_future=task.horizon),
        time_features=_time_features(task, frequency),
        trainer_kwargs={
            "accelerator": "cpu",
            "max_epochs": MAX_EPOCHS,
            "callbacks": [watch],
            "default_root_dir": folder,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": False,
        },
    )


def _time_features(task: PeerTask, frequency: str) -> list[TimeFeature]:
    """Return the library's time features of a frequency, without those whose period the training part does not hold twice."""
    return [feature for feature in time_features_from_frequency_str(frequency) if task.knows_period(PERIODS[feature.__name__])]


def _entry(one: PeerSeries, numbers: dict[str, int], end: int) -> Entry:
    """Return the first rows of a series as the library wants them; gaps stay NaN."""
    target = one.frame["y"].to_numpy(np.float32)[:end]
    return {"start": pd.Timestamp(one.frame.index[0]), "target": target, "feat_static_cat": [numbers[one.name]]}
