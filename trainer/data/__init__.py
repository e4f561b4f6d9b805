"""Photos with labels: where they are, what they say, and which split they belong to."""
