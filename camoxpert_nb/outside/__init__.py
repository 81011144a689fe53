"""What comes from outside: paths, texts, environment, terminals, and a system that refuses."""
