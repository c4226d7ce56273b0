"""What can be configured: settings, deployments.yaml, airflow_settings.yaml, the symbols file."""
