SUMMARY = "Charging-site controller behind the German Smart Meter Gateway"
DESCRIPTION = "ladewartd keeps the uplink through the gateway, forwards OCPP between charging points and backend, \
obeys the grid operator's limits and shares the fuse among all cars. ladewartctl is its command-line client."
SECTION = "console/network"
LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=12812392fb04e217a9daae71a6be5fc1"
CVE_PRODUCT = "ladewart"

inherit cargo cargo-update-recipe-crates ptest-cargo systemd useradd ladewart_files

# The layer lies in the repository that it builds: what is checked out is what is built, layer and program cannot drift
# apart. Every member of the workspace is needed, for Cargo.lock speaks of all of them.
FILESEXTRAPATHS:prepend := "${THISDIR}/../../../..:"
SRC_URI += "\
    file://Cargo.toml;subdir=${BP} \
    file://Cargo.lock;subdir=${BP} \
    file://LICENSE;subdir=${BP} \
    file://proto;subdir=${BP} \
    file://daemon;subdir=${BP} \
    file://ctl;subdir=${BP} \
    file://tests/fuzz;subdir=${BP} \
    file://tests/lab;subdir=${BP} \
    file://tests/tls;subdir=${BP} \
"
require ${BPN}-crates.inc

LADEWART_FILES = "\
    etc/dbus-1/system.d/ladewart-rauc.conf \
    etc/ladewart/site.toml \
    usr/lib/systemd/system/ladewart-failsafe.service \
    usr/lib/systemd/system/ladewartd.service \
    usr/lib/sysusers.d/ladewart.conf \
    usr/lib/tmpfiles.d/ladewart.conf \
    usr/lib/udev/rules.d/60-ladewart.rules \
    usr/libexec/ladewart/ctl-shell \
    usr/libexec/ladewart/failsafe \
"

# Crates with C and assembly (ring, SQLite) are built outside of S and B: without this the path of the build is in their
# debugging information. RUST_DEBUG_REMAP says the same to rustc.
DEBUG_PREFIX_MAP:prepend = "-ffile-prefix-map=${WORKDIR}=${TARGET_DBGSRC_DIR} "

# Size first, one code generation unit; OE takes the debug information out itself.
export CARGO_PROFILE_RELEASE_OPT_LEVEL = "s"
export CARGO_PROFILE_RELEASE_LTO = "fat"
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS = "1"
CARGO_BUILD_FLAGS += "-p ladewartd -p ladewartctl"
# The tests are built apart: cargo would replace the programs by ones that have what only tests ask of a crate (a clock that
# can be stopped), and those would be installed. Optimising across crates is not for them either.
CARGO_BUILD_FLAGS:append:task-compile-ptest-cargo = " --target-dir ${B}/tests --config profile.release.lto=false"
# Where packaged tests look for their snapshots; without it the path of the build would be in them.
export INSTA_WORKSPACE_ROOT = "${PTEST_PATH}"

# Tests that start a built program, or look into the tree, stay with the tree; unit tests go into the package.
do_compile_ptest_cargo[postfuncs] += "ladewart_unit_tests"
ladewart_unit_tests () {
    sed -i -E '\#/(ladewartd|ladewartctl|ladewart_proto)-[0-9a-f]+$#!d' ${CARGO_TEST_BINARIES_FILES}
}

do_install_ptest () {
    (cd ${S} && find daemon/src ctl/src -name '*.snap') | while read -r file; do
        install -D -m 0644 "${S}/$file" "${D}${PTEST_PATH}/$file"
    done
}

# The numbers own files on the data partition; image/files/usr/lib/sysusers.d/ladewart.conf has the same.
USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system --gid 900 ladewart; --system --gid 901 ctl; --system --gid 902 gpio"
USERADD_PARAM:${PN} = "\
    --system --uid 900 --gid ladewart --groups gpio,dialout --home-dir ${localstatedir}/lib/ladewart --no-create-home --shell ${sbindir}/nologin ladewart; \
    --system --uid 901 --gid ctl --groups ladewart --home-dir /data/ctl --no-create-home --shell ${libexecdir}/ladewart/ctl-shell ctl \
"

SYSTEMD_SERVICE:${PN} = "ladewartd.service ladewart-failsafe.service"

PACKAGE_BEFORE_PN += "${PN}-ctl"

# nooelint: oelint.var.order.SUMMARY
SUMMARY:${PN}-ctl = "Command-line client of ladewartd"
FILES:${PN}-ctl = "${bindir}/ladewartctl"
FILES:${PN} += "\
    ${nonarch_libdir}/sysusers.d \
    ${nonarch_libdir}/tmpfiles.d \
    ${nonarch_libdir}/udev/rules.d \
"
CONFFILES:${PN} = "${sysconfdir}/ladewart/site.toml"

# libgpiod-tools would be one more: ladewart-failsafe.service needs it where a board has lines. It is in meta-oe, on which
# this layer does not depend; the appliance installs it.
RRECOMMENDS:${PN} = "${PN}-ctl"
