"""What question answering is made of: answers, spans, windows."""
