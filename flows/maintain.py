"""The flow `maintain`: small files are merged, those that nothing refers to go, and content hashes are recorded for `doctor --deep`."""

from prefect import flow

from flows.direct import maintain as maintain_tables
from flows.tasks import publish, retried_task, settings_of_run
from pipeline.doctor.hashes import HashReport
from pipeline.settings import Settings
from pipeline.store.maintenance import MaintenanceReport


@retried_task
def merge_delete_and_hash(settings: Settings) -> dict[str, MaintenanceReport | HashReport]:
    """Do the three steps; tried again, they find nothing left to do."""
    return maintain_tables(settings)


@flow(name="maintain")
def maintain(settings: Settings | None = None) -> dict[str, MaintenanceReport | HashReport]:
    """Keep the tables small and the hashes of their files recorded, beside writers and readers.

    Args:
        settings: by default those of the process the run is in.
    """
    done = merge_delete_and_hash(settings_of_run(settings))
    rows = [{"step": step, "result": str(report)} for step, report in done.items()]
    publish("maintain", "\n".join(["# Maintenance", "", *(f"- {row['step']}: {row['result']}" for row in rows)]), rows)
    return done
