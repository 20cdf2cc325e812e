"""Pages, one module a noun. Views are functions that glue: services do, templates show."""
