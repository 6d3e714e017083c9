"""What touches the world: calls to the layers below, image files, the database, tasks that run vCPUs."""
