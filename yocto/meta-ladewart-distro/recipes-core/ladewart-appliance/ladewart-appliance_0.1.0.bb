SUMMARY = "What makes a system the Ladewart appliance"
DESCRIPTION = "Data partition, confirmation of the booted slot, remote control, network, packet filter, time, log and \
kernel settings: the files of image/files that are not the daemon's."
SECTION = "base"
LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=12812392fb04e217a9daae71a6be5fc1"

inherit features_check systemd ladewart_files

FILESEXTRAPATHS:prepend := "${THISDIR}/../../../..:"
SRC_URI += "\
    file://LICENSE;subdir=${BP} \
    file://image/lib/masked.txt;subdir=${BP} \
"

LADEWART_FILES = "\
    etc/fw_env.config \
    etc/hostname \
    etc/nftables.conf \
    usr/lib/sysctl.d/50-ladewart.conf \
    usr/lib/systemd/journald.conf.d/10-ladewart.conf \
    usr/lib/systemd/network/40-han.network \
    usr/lib/systemd/network/40-lan.network \
    usr/lib/systemd/resolved.conf.d/10-ladewart.conf \
    usr/lib/systemd/system-preset/10-ladewart.preset \
    usr/lib/systemd/system.conf.d/10-ladewart.conf \
    usr/lib/systemd/system/ladewart-confirm.service \
    usr/lib/systemd/system/ladewart-data.service \
    usr/lib/systemd/system/ladewart-restart.path \
    usr/lib/systemd/system/ladewart-restart.service \
    usr/lib/systemd/system/ladewart-ssh.service \
    usr/lib/systemd/system/nftables.service \
    usr/lib/systemd/timesyncd.conf.d/10-ladewart.conf \
    usr/libexec/ladewart/announce \
    usr/libexec/ladewart/before-install \
    usr/libexec/ladewart/confirm \
    usr/libexec/ladewart/data \
    usr/libexec/ladewart/host-key \
"

REQUIRED_DISTRO_FEATURES = "systemd"

SYSTEMD_SERVICE:${PN} = "\
    ladewart-confirm.service \
    ladewart-data.service \
    ladewart-restart.path \
    ladewart-ssh.service \
    nftables.service \
"

do_install () {
    install -d -m 0755 ${D}/data ${D}${sysconfdir}/systemd/system
    ln -s ../usr/share/zoneinfo/Europe/Berlin ${D}${sysconfdir}/localtime
    # Units that this system does without.
    while read -r unit; do
        ln -s /dev/null ${D}${sysconfdir}/systemd/system/$unit
    done <${S}/image/lib/masked.txt
}

FILES:${PN} = "\
    /data \
    ${sysconfdir} \
    ${libexecdir} \
    ${nonarch_libdir} \
"
RDEPENDS:${PN} = "\
    dropbear \
    e2fsprogs-e2fsck \
    e2fsprogs-mke2fs \
    ladewart \
    ladewart-ctl \
    libgpiod-tools \
    libubootenv-bin \
    nftables \
    tzdata-core \
    util-linux-blkid \
    util-linux-mountpoint \
"
RPROVIDES:${PN} = "u-boot-default-env"
