"""What can be built by name: cards of published sizes, their figures, what they cost here."""
