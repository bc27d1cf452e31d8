"""For clients that speak plain HTTP only, as all of ours do to servers of ours."""

import ssl

NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""As `verify` of an httpx client: it trusts nobody. Else each client reads the machine's certificates, 30 ms of CPU."""
