"""Programs that measure: ``python -m benchmarks.bench_<subject>``, and ``python -m benchmarks.report`` for all of them.

CI runs each for a few seconds, so that none can rot; it asserts no time.
"""
