"""Measure models side by side: parameters, multiply-adds, latency, throughput and memory (`vsn bench`).

`run.run_bench` measures and returns `results.BenchResults`, which `tables.print_table` and `plot.write_plot` show.
`subjects` are the models, `runtimes` compute them, `rounds` times them in turns, `memory` measures the peak.
"""
