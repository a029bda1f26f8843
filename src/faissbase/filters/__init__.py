"""The filter language: `tree` says what a filter means, `columns` answers it for all slots at once."""
