"""Speed comparisons of hptune with hand-written PyTorch and with other tuners; `scripts/bench_speed` runs them."""
