"""Page faults resolved, and pages mapped before they fault: fault-around, populate, huge pages."""
