# What the appliance asks of a kernel, merged over the board's configuration.
FILESEXTRAPATHS:prepend:ladewart-segin-imx93 := "${THISDIR}/../../../../../../image/kernel:"
SRC_URI:append:ladewart-segin-imx93 = " file://appliance.cfg"
