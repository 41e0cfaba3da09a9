"""Search over sub-networks of a super-network and the bits of their layers together."""
