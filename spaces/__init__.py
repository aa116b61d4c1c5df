"""What can be searched: conditional spaces, budgets and typed trial configurations."""
