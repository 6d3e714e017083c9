"""Which node a pod gets: filters, scores, and what is known of nodes for them."""
