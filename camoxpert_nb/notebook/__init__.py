"""What a notebook shows and steers; never torch."""
