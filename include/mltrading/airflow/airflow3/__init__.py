"""What is only so on Airflow 3."""
