"""What our ASGI applications share: who is let in, and how they are served."""
