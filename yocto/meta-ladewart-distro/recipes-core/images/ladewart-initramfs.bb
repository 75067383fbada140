SUMMARY = "The appliance's initial RAM disk"
DESCRIPTION = "Sets up dm-verity for the slot that U-Boot has chosen and hands over to it."
LICENSE = "MIT"

PACKAGE_INSTALL = "ladewart-init"
PACKAGE_EXCLUDE = "kernel-image-*"
IMAGE_FEATURES = ""
IMAGE_LINGUAS = ""
IMAGE_FSTYPES = "cpio.zst"
IMAGE_NAME_SUFFIX ?= ""
IMAGE_ROOTFS_EXTRA_SPACE = "0"

inherit core-image
