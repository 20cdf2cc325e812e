"""Forms, one module a noun: they check shapes, whether a thing can be done is a service's word."""
