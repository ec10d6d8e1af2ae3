"""Settings of a small project. Orders and runs are in one database, so one transaction can hold both."""

import os

from psycopg.conninfo import conninfo_to_dict

SECRET_KEY = os.environ.get("SECRET_KEY", "only-for-this-example")
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["orders"]
ROOT_URLCONF = "orders.views"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

_address = conninfo_to_dict(os.environ["AGNO_DATABASE_URL"])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _address["dbname"],
        "USER": _address.get("user"),
        "PASSWORD": _address.get("password"),
        "HOST": _address.get("host"),
        "PORT": _address.get("port"),
        "CONN_MAX_AGE": 60,
    }
}
