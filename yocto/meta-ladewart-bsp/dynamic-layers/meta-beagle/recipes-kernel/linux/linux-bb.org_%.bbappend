# What the appliance asks of a kernel, merged over the board's configuration.
FILESEXTRAPATHS:prepend:ladewart-beagleplay := "${THISDIR}/../../../../../../image/kernel:"
SRC_URI:append:ladewart-beagleplay = " file://appliance.cfg"
KERNEL_CONFIG_FRAGMENTS:append:ladewart-beagleplay = " ${UNPACKDIR}/appliance.cfg"
