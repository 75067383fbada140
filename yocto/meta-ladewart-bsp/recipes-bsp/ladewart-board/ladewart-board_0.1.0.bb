SUMMARY = "What one board adds to the appliance"
DESCRIPTION = "Output lines with their safe values and the names of the network interfaces, from \
image/boards/LADEWART_BOARD/files."
SECTION = "base"
LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=12812392fb04e217a9daae71a6be5fc1"

inherit ladewart_files

FILESEXTRAPATHS:prepend := "${THISDIR}/../../../..:"
SRC_URI += "file://LICENSE;subdir=${BP}"

PACKAGE_ARCH = "${MACHINE_ARCH}"
COMPATIBLE_MACHINE = "^(ladewart-.*)$"

LADEWART_BOARD_FILES = "\
    usr/lib/ladewart/board/lines \
    usr/lib/systemd/network/10-han0.link \
    usr/lib/systemd/network/10-lan0.link \
"

FILES:${PN} = "${nonarch_libdir}"
