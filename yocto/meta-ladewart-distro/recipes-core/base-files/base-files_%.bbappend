# fstab, hosts and shells of the appliance in the place of the general ones.
FILESEXTRAPATHS:prepend:distro-ladewart := "${THISDIR}/../../../../image/files/etc:"
