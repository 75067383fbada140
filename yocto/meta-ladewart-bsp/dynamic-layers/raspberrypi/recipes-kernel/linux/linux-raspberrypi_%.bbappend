# What the appliance asks of a kernel, merged over the board's configuration.
FILESEXTRAPATHS:prepend:ladewart-raspberrypi4 := "${THISDIR}/../../../../../../image/kernel:"
SRC_URI:append:ladewart-raspberrypi4 = " file://appliance.cfg"
