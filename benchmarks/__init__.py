"""Speed as ratios: ours against something anybody can write, and against every peer, side by side in one run.

    python -m benchmarks                all of it, into RESULTS.md (25 minutes; --quick: a few)

    python -m benchmarks.hot_path       each log call against appending to a deque in memory; tails at 1 kHz
    python -m benchmarks.file_store     events into complete files, against a plain writer and every peer
    python -m benchmarks.rest           metrics into a real MLflow server, against raw bodies and MLflow's own client
    python -m benchmarks.training       steps a second of a real training loop that logs
    python -m benchmarks.cpu            processor time of the whole process tree
    python -m benchmarks.memory         resident memory with the store away, and after millions of events
    python -m benchmarks.startup        import, start of a run, first log, exit
    python -m benchmarks.recovery       what a killed or offline program left behind, delivered
    python -m benchmarks.fleet          a thousand clients on one server that falls behind and restarts

Absolute figures stand beside the ratios and mean little: they belong to the machine and its other work.
"""
