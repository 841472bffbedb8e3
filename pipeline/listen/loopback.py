"""Which hosts are this machine, where a password may travel unencrypted and a server may ask for no token.

Called by `mqtt_broker.py` and `http.py`.
"""

import ipaddress


def is_loopback(host: str) -> bool:
    """Return whether what is sent to a host name or address stays on this machine.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.2", "::1", "192.0.2.1", "localhost.example")]
    [True, True, True, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name
        return False
