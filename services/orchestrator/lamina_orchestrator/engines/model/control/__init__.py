"""The control loop: from a change to the controllers that must look, to their actions carried out."""
