"""Relays: reactions that carry records to targets outside, under the names that those know."""
