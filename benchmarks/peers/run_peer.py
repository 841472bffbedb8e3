"""One peer, in the peers' environment: `python -m benchmarks.peers.run_peer NAME FOLDER`, started by `python -m benchmarks.peers`.

Reads the exchange folder, trains once, forecasts every origin asked for, and writes FOLDER/NAME/forecasts.parquet and peer.json.
"""

import importlib
import json
import logging
import os
import platform
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

PEERS = {  # by name, the module whose function of that name runs it
    "seasonal_naive": "statistical",
    "auto_ets": "statistical",
    "nf_lstm": "nixtla",
    "nf_nhits": "nixtla",
    "nf_patchtst": "nixtla",
    "darts_block_rnn": "darts_rnn",
    "gluonts_deepar": "deepar",
}


def main() -> None:
    """Run the peer named on the command line."""
    name, results = sys.argv[1], Path(sys.argv[2])
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")  # the libraries warn about each other's versions

    from benchmarks.peers.peer_task import PeerTask

    task = PeerTask.read(results)
    result = getattr(importlib.import_module(f"benchmarks.peers.{PEERS[name]}"), name)(task)
    folder = results / name
    folder.mkdir(exist_ok=True)
    result.to_frame(task).to_parquet(folder / "forecasts.parquet")
    record = {
        "peer": name,
        "library": result.library,
        "version": version(result.library),
        "torch": version("torch"),
        "python": platform.python_version(),
        "threads": int(os.environ["OMP_NUM_THREADS"]),
        "fingerprint": task.fingerprint,
        "budget_s": task.seconds,
        "training_s": round(result.training_s, 1),
        "forecasting_s": round(result.forecasting_s, 1),
        "cut_off": result.cut_off,
        "how": result.how,
        "missing": result.missing,
        "covariates": result.covariates,
        "seed": task.seed,
        "settings": result.settings,
    }
    (folder / "peer.json").write_text(json.dumps(record, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
