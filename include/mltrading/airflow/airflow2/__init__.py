"""What is only so on Airflow 2.11."""
