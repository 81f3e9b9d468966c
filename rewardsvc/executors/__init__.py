"""Where work runs: everything between the scheduler and a reward's own code.

    front process                         parent (imports every reward once)
    ─────────────                         ──────────────────────────────────
    cpu.py   io.py      pools (pool.py,   parent.py   forks on command
       │       │        line.py, work.py)    └─ minder.py   one per worker: waits, kills, cleans up
    link.py             its ends                  └─ worker.py (item by item) or coroutines.py (many at once):
       │                                             judging.py  an order with its task and params in order
       │                                             verdicts.py what a reward returns or raises, as a verdict
       │                                             age.py      when another process has to take over
       └────────────── wire.py: frames over a socket, a shared cell ──────────────┘

Plugin code runs in the parent (imports) and in workers (verdicts), never in the front process.
"""
