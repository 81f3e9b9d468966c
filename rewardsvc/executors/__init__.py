"""Where work runs: everything between the scheduler and a reward's own code.

    front process                         parent (imports every reward once)
    ─────────────                         ──────────────────────────────────
    cpu.py   io.py      pools             parent.py   forks on command
       │       │                             └─ minder.py   one per worker: waits, kills, cleans up
    link.py             its ends                  └─ worker.py   runs rewards: one by one, or as coroutines
       └────────────── wire.py: frames over a socket, a shared cell ──────────────┘

Plugin code runs in the parent (imports) and in workers (verdicts), never in the front process.
"""
