"""Running as a service: log, metrics, status page, supervisor, worker."""
