"""What every room stands on: locks, time limits, forks, calls of user code, the log."""
