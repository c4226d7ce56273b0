"""The command line, and what a task of a DAG does in its own process."""
