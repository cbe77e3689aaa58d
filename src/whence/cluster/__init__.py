"""Where the shards of a dataset run are computed: processes of this machine, Ray, SLURM."""
