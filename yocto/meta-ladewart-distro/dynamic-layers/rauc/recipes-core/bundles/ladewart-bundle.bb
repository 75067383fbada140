# nooelint: oelint.file.underscores oelint.var.mandatoryvar.SRC_URI
SUMMARY = "Update bundle of the Ladewart appliance"
DESCRIPTION = "Root and boot partition of ladewart-image, signed; RAUC checks it and writes the other slot."
LICENSE = "MIT"

inherit bundle features_check

REQUIRED_DISTRO_FEATURES = "rauc"

RAUC_BUNDLE_COMPATIBLE = "ladewart-${LADEWART_BOARD}"
RAUC_BUNDLE_VERSION = "${IMAGE_VERSION}"
RAUC_BUNDLE_DESCRIPTION = "Ladewart ${IMAGE_VERSION}"
RAUC_BUNDLE_FORMAT = "verity"
RAUC_BUNDLE_SLOTS = "rootfs boot"

RAUC_SLOT_rootfs = "ladewart-image"
RAUC_SLOT_rootfs[fstype] = "ladewartroot"
RAUC_SLOT_rootfs[rename] = "root.img"
RAUC_SLOT_boot = "ladewart-image"
RAUC_SLOT_boot[fstype] = "ladewartboot"
RAUC_SLOT_boot[rename] = "boot.img"

python () {
    # Fail before anything is built, and say what is missing.
    missing = [name for name in ("RAUC_KEY_FILE", "RAUC_CERT_FILE") if not d.getVar(name)]
    if missing:
        raise bb.parse.SkipRecipe("%s not set: who signs the updates? See yocto/SECURITY.md" % " and ".join(missing))
}
