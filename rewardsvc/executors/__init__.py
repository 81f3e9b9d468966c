"""Where work runs: everything between the scheduler and a reward's own code.

    front process                         parent (imports every reward once)
    ─────────────                         ──────────────────────────────────
    cpu.py   io.py      pools             parent.py   forks on command
       │       │                             └─ minder.py   one per worker: waits, kills, cleans up
    link.py             its ends                  └─ worker.py   judges item by item
    parentage.py                                     coroutines.py   or many at once
       └────────────── wire.py: frames over a socket, a shared cell ──────────────┘

In front, `pool.py` is what both pools share, `line.py` says whose turn it is, `work.py` what is left of a group, and
`vitals.py` what the kernel says of a worker. In a worker, `judging.py` puts an order together, `verdicts.py` makes a
verdict of whatever a reward returns or raises, and `age.py` says when another process has to take over.
Plugin code runs in the parent (imports) and in workers (verdicts), never in the front process.
"""
