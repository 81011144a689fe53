"""What a training would take on a GPU that is not here."""
