"""OpenAnomaly: anomaly detection for Prometheus metrics that needs no training and no rules."""
