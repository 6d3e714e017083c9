"""The control loop: changes wake controllers, and the actions that they return are executed and recorded."""
