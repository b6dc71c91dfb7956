"""What taggers share: words and their sub-words, tags and their counts."""
