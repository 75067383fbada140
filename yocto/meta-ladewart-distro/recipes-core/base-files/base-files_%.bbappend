# fstab, hosts and shells of the appliance in the place of the general ones.
FILESEXTRAPATHS:prepend:ladewart := "${THISDIR}/../../../../image/files/etc:"
