require ladewart-image.bb

SUMMARY:append = " with a way in for developers"
DESCRIPTION:append = " This one lets root log in over SSH without a password and has tools and tests on board: never for a \
device in the field."

# nooelint: oelint.var.badimagefeature.allow-empty-password oelint.var.badimagefeature.allow-root-login oelint.var.badimagefeature.empty-root-password oelint.var.badimagefeature.tools-debug
IMAGE_FEATURES += "\
    allow-empty-password \
    allow-root-login \
    empty-root-password \
    tools-debug \
"
IMAGE_INSTALL += "\
    ladewart-development \
    ladewart-ptest \
    ptest-runner \
"

TEST_SUITES = "ping ssh systemd ladewart_daemon ladewart_appliance"

# The appliance knows one login shell, which runs ladewartctl alone.
ladewart_root_shell () {
    echo /bin/sh >>${IMAGE_ROOTFS}${sysconfdir}/shells
}
ROOTFS_POSTPROCESS_COMMAND += "ladewart_root_shell"
