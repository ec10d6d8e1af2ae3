"""The public face: agents, clients, handles, knowledge bases."""
