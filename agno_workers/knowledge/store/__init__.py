"""Knowledge bases in Postgres, with the SQL beside each module."""
