"""Programs that measure: ``python -m benchmarks.bench_<subject>``. Run in CI as smoke tests, so that none can rot."""
