"""Does depth help, after each depth has been tuned on its own? `tidecast study depth` below the command line.

Called by `flows.study`. Every depth, plain and residual, gets as many parameters, trials, epochs and fresh seeds, and its own learning
rate; a cell whose range of rates had to be widened gets extra trials. Choices look at the validation period alone; the comparison is
made on origins after it. Everything is kept in the study's folder: the same command goes on where it was killed.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from pathlib import Path

from pipeline.clock import Clock
from pipeline.settings import Settings, TrainSettings
from pipeline.study.comparison import compare
from pipeline.study.depth_report import DepthReport
from pipeline.study.finals import Final, FinalResult, final_path, load_final, run_final
from pipeline.study.inputs import Step, StudyInputs
from pipeline.study.knobs import Range, spread
from pipeline.study.plan import DepthRequest, StudyPlan, cell_settings, make_plan
from pipeline.study.rates import RATE, border_side, rate_of, rate_range, widened
from pipeline.study.search import Search, add_points, begin, best_record, records, run_trial_of, sole_user, study_folder
from pipeline.study.tune import log_trials
from pipeline.study.workers import run_jobs
from pipeline.tracking.nested import Child, log_child, logged_children, study_run
from pipeline.tracking.run import Run

OTHER_KNOBS = (Range("weight_decay", 1e-4, 1e-1, log=True), Range("network.dropout", 0.0, 0.5))


def study_depth(settings: Settings, request: DepthRequest, clock: Clock, step: Step | None = None) -> DepthReport:
    """Compare depths 1, 2, 3, 4 and 6, plain and residual, each tuned on its own; go on with the study where it was begun.

    Args:
        settings: of every training, but for architecture, epochs and the knobs searched.
        request: series, borders and budget.
        clock: for the time spent and the instants of runs.
        step: told of every training.

    Raises:
        DataError: when no series matches, or there is too little history or nothing after the validation period.
        SettingsError: when the time asked for is too short.
        StoreError: when lake, study or tracking store cannot be read or written, or another process works on this study.
        TidecastError: when no trial of some cell completes.
    """
    deadline = clock.now() + timedelta(minutes=request.minutes)
    inputs = StudyInputs.load(settings, request.series, request.train_end, request.validation_end)
    budget = (request.depths, request.trials, request.seeds, request.epochs or request.minutes)
    name = inputs.name("depth", train=settings.train.model_dump(mode="json"), budget=budget)
    folder = study_folder(settings, name)
    with sole_user(folder), study_run(settings, name, clock, input_versions=inputs.versions, role="study") as run:
        plan = _plan(folder / "plan.json", inputs, settings.train, request)
        searches = _cell_searches(folder, inputs.up_to(plan.data_end), settings.train, plan, request.trials)
        study = _Study(request, plan, searches, run, clock, step, logged_children(run))
        study.search()
        study.extend(deadline)
        report = compare(name, run.run_id, folder, plan, study.searches, study.finals())
        run.set_tags({"epochs": str(plan.epochs)})
        run.log_json(report.to_dict(), "depth.json")
        run.log_summary(report.to_markdown())
        for picture in report.pictures:
            run.log_artifact(folder / picture)
    (folder / "depth.md").write_text(report.to_page(), encoding="utf-8")
    return report


def _cell_searches(folder: Path, inputs: StudyInputs, settings: TrainSettings, plan: StudyPlan, trials: int) -> list[Search]:
    """Return a search for each cell: the same knobs, trials and rule of pruning, around the settings' own learning rate."""
    rate = rate_range(settings.learning_rate)
    return [
        Search(
            folder=folder,
            name=cell.name,
            panel=inputs.panel,
            split=inputs.split,
            settings=cell_settings(settings, cell, plan.epochs),
            knobs=(rate, *OTHER_KNOBS),
            spread_trials=max(2, -(-2 * trials // 3)),
            warm_up_epochs=plan.epochs // 2,  # deep stacks start slowly
        )
        for cell in plan.cells
    ]


def _plan(path: Path, inputs: StudyInputs, settings: TrainSettings, request: DepthRequest) -> StudyPlan:
    """Read the plan of a study that was begun, else make one."""
    if not path.exists():
        make_plan(inputs, settings, request).save(path)
    return StudyPlan.load(path)


@dataclass
class _Study:
    """A study under way."""

    request: DepthRequest
    plan: StudyPlan
    searches: list[Search]
    run: Run
    clock: Clock
    step: Step | None
    logged: set[str]
    done: int = 0  # trainings, those of an earlier command included
    total: int = 0

    def search(self) -> None:
        """Run as many trials of every cell as are asked for, the cells in turn."""
        knobs = self.searches[0].knobs
        for search in self.searches:
            begin(search, spread(knobs, search.spread_trials))
            log_trials(self.run, search, self.logged, f"{search.name} trial")  # what a killed command left
            self.done += min(len(records(search)), self.request.trials)
        self.total = len(self.searches) * (self.request.trials + self.request.seeds)
        self._run(dict.fromkeys(range(len(self.searches)), self.request.trials), "search")

    def extend(self, deadline: datetime) -> None:
        """Widen the range of the cells whose best rate lies at its end, once, where the time allows."""
        extra = max(2, self.request.trials // 2)
        sides = {cell: side for cell, search in enumerate(self.searches) if (side := self._side(search)) != 0}
        begun = any(len(records(self.searches[cell])) > self.request.trials for cell in sides)
        cost = self.plan.duration(sides, extra, self.request.workers)
        cost += self.plan.duration(range(len(self.searches)), self.request.seeds, self.request.workers)
        if not begun and self.clock.now() + cost > deadline:
            return
        for cell, side in sides.items():
            rate, decade = widened(rate_of(self.searches[cell]), side)
            self.searches[cell] = replace(self.searches[cell], knobs=(rate, *OTHER_KNOBS))
            add_points(self.searches[cell], spread((decade, *OTHER_KNOBS), extra))
        self.total += len(sides) * extra
        self._run(dict.fromkeys(sides, self.request.trials + extra), "search beyond the border")

    def finals(self) -> list[list[FinalResult]]:
        """Train the best of every cell anew, with seeds of its own."""
        first = self.searches[0].settings.seed + 1
        best = [best_record(search, records(search)).knobs for search in self.searches]
        wanted = [[Final(cell, first + n, knobs) for n in range(self.request.seeds)] for cell, knobs in enumerate(best)]
        for final in run_jobs(partial(run_final, self.searches), chain.from_iterable(wanted), self.request.workers):
            self._log_final(final)
            self._tell("fresh seeds")
        return [[load_final(self.searches[final.cell], final) for final in of_cell] for of_cell in wanted]

    def _side(self, search: Search) -> int:
        """Return at which end of its first range the best rate of a search lies, as `border_side` does."""
        first = records(search)[: self.request.trials]
        return border_side(rate_of(search), float(best_record(search, first).knobs[RATE]))

    def _run(self, wanted: dict[int, int], what: str) -> None:
        """Run trials until each search has as many as are wanted."""
        missing = {cell: max(0, count - len(records(self.searches[cell]))) for cell, count in wanted.items()}
        turns = [cell for turn in range(max(missing.values(), default=0)) for cell, count in missing.items() if turn < count]
        for cell in run_jobs(partial(run_trial_of, self.searches), turns, self.request.workers):
            log_trials(self.run, self.searches[cell], self.logged, f"{self.searches[cell].name} trial")
            self._tell(what)

    def _tell(self, what: str) -> None:
        self.done += 1
        if self.step is not None:
            self.step(self.done, self.total, what)

    def _log_final(self, final: Final) -> None:
        """Write a finalist's training as a run below the study's."""
        name = final_path(self.searches[final.cell], final).stem
        if name in self.logged:
            return
        result, now = load_final(self.searches[final.cell], final), self.clock.now()
        child = Child(
            name=name,
            state="complete",
            params={**final.knobs, "seed": final.seed},
            curves=result.curves,
            metrics={"validation/best": result.validation, "test/crps": result.crps},
            started=now - timedelta(seconds=result.seconds),
            ended=now,
        )
        log_child(self.run, child)
        self.logged.add(name)
