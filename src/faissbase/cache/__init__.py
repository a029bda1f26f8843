"""The semantic cache: answers served again to prompts that mean the same."""
