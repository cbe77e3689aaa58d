"""Where the shards of a dataset run are computed: processes of this machine, Ray, SLURM.

An engine knows a shard as a command, a file that says how far it is, and a log (`job.py`). It may end at any moment and
be started again, on any machine that sees the run's folder: what it had flushed is kept, and it goes on from there.
"""
