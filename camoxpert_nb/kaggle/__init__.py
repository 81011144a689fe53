"""What is attached, how long it lasts, what is uploaded."""
