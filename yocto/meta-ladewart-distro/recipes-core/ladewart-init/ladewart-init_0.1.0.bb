SUMMARY = "Finds the slot's root, has it verified, hands over"
DESCRIPTION = "The one program of the appliance's initial RAM disk."
SECTION = "base"
LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=12812392fb04e217a9daae71a6be5fc1"

FILESEXTRAPATHS:prepend := "${THISDIR}/../../../..:"
SRC_URI = "\
    file://LICENSE;subdir=${BP} \
    file://image/initrd/init;subdir=${BP} \
"

inherit allarch

do_install () {
    install -D -m 0755 ${S}/image/initrd/init ${D}/init
    install -d -m 0755 ${D}/new
}

FILES:${PN} = "\
    /init \
    /new \
"
# dmsetup is in lvm2's main package.
RDEPENDS:${PN} = "\
    busybox \
    lvm2 \
"
