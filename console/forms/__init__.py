"""Forms, one module a noun. They check shapes; whether a thing can be done is the services' word."""
