SUMMARY = "Ladewart for a system of your own"
DESCRIPTION = "The daemon with its unit, accounts and safe values, and its client. The whole appliance is ladewart-image \
of meta-ladewart-distro."

inherit packagegroup

RDEPENDS:${PN} = "\
    ladewart \
    ladewart-ctl \
"
