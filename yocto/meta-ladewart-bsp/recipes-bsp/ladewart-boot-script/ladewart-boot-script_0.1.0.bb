SUMMARY = "U-Boot's script that chooses the slot"
DESCRIPTION = "image/boot/boot.cmd with the board's own settings before it."
SECTION = "bootloaders"
LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=12812392fb04e217a9daae71a6be5fc1"

DEPENDS = "u-boot-tools-native"
FILESEXTRAPATHS:prepend := "${THISDIR}/../../../..:"
SRC_URI = "\
    file://LICENSE;subdir=${BP} \
    file://image/boot/boot.cmd;subdir=${BP} \
"

inherit deploy nopackages

INHIBIT_DEFAULT_DEPS = "1"
PACKAGE_ARCH = "${MACHINE_ARCH}"
COMPATIBLE_MACHINE = "^(ladewart-.*)$"

do_compile () {
    {
        echo "setenv disk_interface ${LADEWART_DISK_INTERFACE}"
        echo "setenv disk_unit ${LADEWART_DISK_UNIT}"
        echo "setenv fit_addr ${LADEWART_FIT_ADDR}"
        # The name of a variable of U-Boot's, not of ours: it goes in as it is.
        echo 'setenv board_fdt ${LADEWART_BOARD_FDT}'
        cat ${S}/image/boot/boot.cmd
    } >${B}/boot.cmd
    mkimage -A arm64 -T script -C none -n ladewart -d ${B}/boot.cmd ${B}/boot.scr
}

do_install[noexec] = "1"

do_deploy () {
    install -m 0644 ${B}/boot.scr ${DEPLOYDIR}/boot.scr
}
addtask deploy after do_compile before do_build
