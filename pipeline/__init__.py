"""The river, from raw readings to queried forecasts; each stage is a folder or a module of this package.

source ──► ingest ──► readings ──► prepare ──► observations ──► train ──► registry (champion)
              │       (Delta)                  (Delta)                        │
              └─► quarantine (Delta)               │                          ▼
                                                   └──────────────────► forecast ──► forecasts ──► query
                                                                      (carried state)  (Delta)
                                                                            │
                                                                            └─► evaluate (the same engine over past origins)

One direction. `flows` schedules these stages with Prefect; `models` is the network inside `train` and `forecast`.
"""
