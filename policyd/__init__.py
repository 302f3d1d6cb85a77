"""`mailward-policyd`: what accounts, clients and domains send, and how accounts log in."""
