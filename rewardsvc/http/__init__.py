"""HTTP around the scheduler: the guard in front, one route file per concern, problems as RFC 9457 documents."""
