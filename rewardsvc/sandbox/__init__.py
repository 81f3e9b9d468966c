"""Runs untrusted programs and reports what came out of them. It knows no expected output and gives no verdict.

    client ──job──▶ supervisor ──▶ runner, one per core ──▶ template, one per core and runtime ──▶ box ──▶ program
           ◀─────── results, one frame per test ──────────┘

The client lives in the service; the supervisor is a process of its own with an empty environment, and nothing below it
imports anything but the standard library. What each layer is for is told at the head of its file: `client`,
`supervisor`, `runner`, `template`, `box`, `program`.
"""
