"""What chat and preferences share: the forms of conversations, templates, log-probabilities."""
