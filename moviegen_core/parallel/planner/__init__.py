"""What a training run needs and how long its steps take, estimated before it runs: the sharding plans of A.2, generated and ranked."""
