"""Conversation memory: what was said, kept and found again."""
