"""The same files and protocol as `benchmarks.accuracy`, forecast by the libraries a user would pick instead, in an environment of theirs.

In tidecast's environment run `__main__` (the driver), `exchange` (what a peer is given and gives back) and `tables`; in the peers'
run `run_peer` (one peer, started by the driver), `peer_task` (the exchange folder as they read it), `training_watch` (budget, early
stopping and best weights, alike for all) and the libraries: `nixtla`, `darts_rnn`, `deepar` and `statistical`.
"""
