# What the appliance asks of a kernel, merged over oe-core's configuration.
FILESEXTRAPATHS:prepend:ladewart-qemuarm64 := "${THISDIR}/../../../../image/kernel:"
SRC_URI:append:ladewart-qemuarm64 = " \
    file://appliance.cfg \
    file://qemu-arm64.cfg \
"
KMACHINE:ladewart-qemuarm64 = "qemuarm64"
