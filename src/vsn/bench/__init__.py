"""`vsn bench`: models side by side, by parameters, multiply-adds, latency, throughput and memory.

`run_bench` measures and returns what the JSON holds; `format_table` (tables) and `write_plot` (plot) show it.
The parts: `subjects` what is measured, `runtimes` what computes it, `rounds` the turns that are taken,
`ratios` how they compare, `memory` the peak.
"""
