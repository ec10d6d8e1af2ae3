from django.db import models


class Order(models.Model):
    text = models.TextField()
    run_id = models.UUIDField(null=True)
