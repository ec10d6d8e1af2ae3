"""Between Postgres and Celery: publishing pending messages, Celery's results on Postgres, and the keeper."""
