"""HTTP itself: routes, middleware, problem details, the OpenAPI description."""
