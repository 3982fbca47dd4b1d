"""What a run will need, before it runs: parameters, operations, memory and time. Nothing here imports torch itself."""
