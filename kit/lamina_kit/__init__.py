"""What all services share and what knows no layer: here, the words that everything else speaks."""
