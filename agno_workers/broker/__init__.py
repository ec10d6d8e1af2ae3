"""Between Postgres and Celery: sending what is owed, Celery's results on Postgres, and the keeper."""
