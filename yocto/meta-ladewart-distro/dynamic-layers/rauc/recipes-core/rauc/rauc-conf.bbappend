# The appliance's slots in the place of the example, at the place where image/build has them, too.
FILESEXTRAPATHS:prepend:distro-ladewart := "${THISDIR}/../../../../../../image/files/etc/rauc:"

do_install:distro-ladewart () {
    grep -q "BEGIN CERTIFICATE" "${UNPACKDIR}/${RAUC_KEYRING_FILE}" ||
        bbfatal "RAUC_KEYRING_FILE holds no certificate: an appliance without a keyring can never be updated. See yocto/SECURITY.md"
    install -d -m 0755 ${D}${sysconfdir}/rauc
    sed 's|@COMPATIBLE@|ladewart-${LADEWART_BOARD}|' ${UNPACKDIR}/system.conf >${D}${sysconfdir}/rauc/system.conf
    install -m 0644 "${UNPACKDIR}/${RAUC_KEYRING_FILE}" ${D}${sysconfdir}/rauc/keyring.pem
}

PACKAGE_ARCH:distro-ladewart = "${MACHINE_ARCH}"
