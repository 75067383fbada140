SUMMARY = "A way in for developers"
DESCRIPTION = "Root's SSH server in the place of the one that runs ladewartctl alone. Never for a device in the field."
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "file://05-ladewart-development.preset"

S = "${UNPACKDIR}"

inherit allarch

do_install () {
    install -D -m 0644 ${S}/05-ladewart-development.preset ${D}${nonarch_libdir}/systemd/system-preset/05-ladewart-development.preset
}

FILES:${PN} = "${nonarch_libdir}/systemd/system-preset"
RDEPENDS:${PN} = "dropbear"
