"""What runs: threads, processes, containers, and how they begin, are signalled and end."""
