"""Workflows: steps in an order that code decides."""
