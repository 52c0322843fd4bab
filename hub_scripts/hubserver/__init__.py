"""The local Hub behind `local_hub.py`: `app` routes, `store` keeps, the others answer requests."""
