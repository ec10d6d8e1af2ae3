"""What users build and hold: agents, clients, handles."""
