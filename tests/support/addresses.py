"""Addresses and URLs to put before the guard, and a judge of addresses that was written without it."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network

from hypothesis import strategies as st

PRIVATE = tuple(
    ip_network(block)
    for block in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
    )
)  # fmt: skip
"""The IANA special-purpose registry, written down a second time: the guard's own table is not its judge."""


def is_public(ip: IPv4Address | IPv6Address) -> bool:
    """The judge: written from the registries, without the guard."""
    if isinstance(ip, IPv4Address):
        return not any(ip in network for network in PRIVATE)
    wrapped = ("2001::/23", "2002::/16", "2001:db8::/32", "3fff::/20")
    return ip in IPv6Network("2000::/3") and not any(ip in IPv6Network(network) for network in wrapped)


addresses = st.one_of(
    st.ip_addresses(),
    st.sampled_from(PRIVATE).flatmap(lambda network: st.ip_addresses(network=network)),
    st.ip_addresses(v=4).map(lambda ip: IPv6Address(f"::ffff:{ip}")),
    st.ip_addresses(v=4).map(lambda ip: IPv6Address(f"64:ff9b::{ip}")),
    st.ip_addresses(v=4).map(lambda ip: IPv6Address(f"2600::5efe:{ip}")),
    st.ip_addresses(v=4).map(lambda ip: IPv6Address((0x2002 << 112) | (int(ip) << 80))),
)

spellings: list[st.SearchStrategy[str]] = [
    st.ip_addresses(v=4).map(form)
    for form in (
        str,
        lambda ip: str(int(ip)),
        lambda ip: hex(int(ip)),
        lambda ip: oct(int(ip)).replace("0o", "0"),
        lambda ip: ".".join(f"0x{byte:x}" for byte in ip.packed),
        lambda ip: ".".join(f"0{byte:o}" for byte in ip.packed),
        lambda ip: f"{ip.packed[0]}.{int.from_bytes(ip.packed[1:])}",
        lambda ip: f"{ip}.",
        lambda ip: "".join(chr(ord(char) + 0xFEE0) for char in str(ip)),
        lambda ip: str(ip).replace(".", "\u3002"),
        lambda ip: f"[::ffff:{ip}]",
        lambda ip: f"[64:ff9b::{ip}]",
        lambda ip: f"[::{ip}]",
    )
]
hosts = st.one_of(*spellings, st.ip_addresses(v=6).map(lambda ip: f"[{ip}]"), st.text(min_size=1, max_size=40))
urls = st.one_of(
    st.builds("http://{}{}{}".format, hosts, st.sampled_from(["", ":80", ":8080", ":22"]), st.text(max_size=20)),
    st.text(alphabet="http:/@[]0123456789abcdefx.%\\?#１。", max_size=60).map("http://{}".format),
)
