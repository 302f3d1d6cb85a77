"""Running as a service: configuration, log, metrics, status page, supervisor, worker."""
