"""Where the work runs: Ray, MLflow and Kubernetes are known here and nowhere else."""
