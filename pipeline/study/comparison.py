"""The finalists of a study of depth side by side: paired differences with intervals, validity, time scales, and the pictures.

Called by `pipeline.study.depth`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.study.bootstrap import Floats, Interval, Replicates, holm, resample
from pipeline.study.cells import REFERENCE_DEPTH, Cell
from pipeline.study.depth_report import CellReport, DepthReport
from pipeline.study.finals import FinalResult
from pipeline.study.held_out import held_out
from pipeline.study.pictures import draw_budget, draw_differences, draw_memory
from pipeline.study.plan import StudyPlan
from pipeline.study.rates import RATE, border_side, rate_of
from pipeline.study.search import Search, TrialRecord, best_record, records
from pipeline.train.fit import forecaster_config

REPLICATES = 4000


def compare(
    study: str, run_id: str, folder: Path, plan: StudyPlan, searches: Sequence[Search], finals: Sequence[Sequence[FinalResult]]
) -> DepthReport:
    """Compare every cell with depth 2 of the same wiring on the held-out origins, and draw what came out.

    Args:
        study: name.
        run_id: of its MLflow run.
        folder: gets the pictures.
        plan: of the study.
        searches: one for each cell.
        finals: for each cell the trainings with fresh seeds.
    """
    panel, settings = searches[0].panel, searches[0].settings
    config = forecaster_config(settings, panel.interval, panel.covariates)
    stride = held_out(panel, searches[0].split, config.horizon, len(config.quantile_levels)).stride
    block_length = -(-max(config.horizon, *config.seasons, 1) // stride)
    losses_CKSO = np.stack([[result.losses_SO for result in cell] for cell in finals])
    replicates = resample(losses_CKSO, block_length=block_length, num_replicates=REPLICATES, seed=settings.seed)
    found = [records(search) for search in searches]
    rows = _rows(plan.cells, searches, found, finals, _differences(plan.cells, replicates))
    pictures = (
        draw_differences(rows, folder / "differences.png"),
        draw_memory(rows, folder / "memory.png"),
        draw_budget([(cell, _reached(tried)) for cell, tried in zip(plan.cells, found, strict=True)], folder / "budget.png"),
    )
    return DepthReport(
        study=study,
        run_id=run_id,
        folder=str(folder),
        series=losses_CKSO.shape[2],
        origins=losses_CKSO.shape[3],
        seeds=losses_CKSO.shape[1],
        epochs=plan.epochs,
        train_end=plan.train_end,
        validation_end=plan.validation_end,
        data_end=plan.data_end,
        block_length=block_length,
        num_lags=finals[0][0].memory.response_LK.shape[1],
        cells=tuple(rows),
        pictures=tuple(path.name for path in pictures),
    )


def _reached(tried: Sequence[TrialRecord]) -> list[float]:
    """Return the best validation loss of each trial that has one; of a pruned one, up to where it was pruned."""
    return [record.validation for record in tried if np.isfinite(record.validation)]


def _differences(cells: Sequence[Cell], replicates: Replicates) -> list[Interval | None]:
    """Return each cell's difference to depth 2 of its wiring; None for depth 2 itself."""
    reference = {cell.wiring: index for index, cell in enumerate(cells) if cell.depth == REFERENCE_DEPTH}
    return [
        None if cell.depth == REFERENCE_DEPTH else replicates.relative_difference(index, reference[cell.wiring])
        for index, cell in enumerate(cells)
    ]


def _rows(
    cells: Sequence[Cell],
    searches: Sequence[Search],
    found: Sequence[Sequence[TrialRecord]],
    finals: Sequence[Sequence[FinalResult]],
    differences: Sequence[Interval | None],
) -> list[CellReport]:
    corrected = iter(holm([difference.p_value for difference in differences if difference is not None]))
    rows = []
    for cell, search, tried, results, difference in zip(cells, searches, found, finals, differences, strict=True):
        best, rate = best_record(search, tried), rate_of(search)
        losses = [result.crps for result in results]
        row = CellReport(
            cell=cell,
            trials=len(tried),
            pruned=sum(record.state == "pruned" for record in tried),
            failed=sum(record.state == "fail" for record in tried),
            learning_rate=float(best.knobs[RATE]),
            rate_low=rate.low,
            rate_high=rate.high,
            is_void=border_side(rate, float(best.knobs[RATE])) != 0,
            validation=best.validation,
            crps=float(np.mean(losses)),
            crps_spread=float(np.std(losses, ddof=1)) if len(losses) > 1 else 0.0,
            difference=difference,
            p_holm=None if difference is None else next(corrected),
            epochs=float(np.mean([len(result.curves) for result in results])),
            late_gain=float(np.mean([result.late_gain for result in results])),
            clipped=float(np.mean([result.clipped for result in results])),
            faded=_median_ticks([result.memory.faded_L for result in results]),
            gone=_median_ticks([result.memory.gone_L for result in results]),
        )
        rows.append(row)
    return rows


def _median_ticks(of_seeds: Sequence[Floats]) -> tuple[int, ...]:
    """Return for each layer the median over the seeds, in whole ticks."""
    return tuple(int(ticks) for ticks in np.median(np.stack(of_seeds), axis=0))
