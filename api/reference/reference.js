// Draws the API's own description of itself with Swagger UI. Nothing here may be inline: the page's policy forbids it.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#reference", deepLinking: true, validatorUrl: null });
