import json

from django.db import connection, transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from orders.agents import clerk
from orders.models import Order


@csrf_exempt
def create(request: HttpRequest) -> JsonResponse:
    """Store an order and submit a run about it in one transaction: both happen, or neither."""
    with transaction.atomic():
        order = Order.objects.create(text=request.POST["text"])
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT agno.submit(%s, %s, metadata => %s)",
                ["clerk", order.text, json.dumps({"order": order.pk})],
            )
            (order.run_id,) = cursor.fetchone()
        order.save()
    return JsonResponse({"order": order.pk, "run": order.run_id}, status=202)


@csrf_exempt
def create_then_submit(request: HttpRequest) -> JsonResponse:
    """Store an order, and submit the run after the commit. If this process dies in between, there is an order without a run."""
    with transaction.atomic():
        order = Order.objects.create(text=request.POST["text"])
        transaction.on_commit(lambda: clerk.delay(order.text, idempotency_key=f"order-{order.pk}"))
    return JsonResponse({"order": order.pk}, status=202)


urlpatterns = [path("orders", create), path("orders/later", create_then_submit)]
