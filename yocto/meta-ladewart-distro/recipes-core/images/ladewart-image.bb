SUMMARY = "The Ladewart appliance"
DESCRIPTION = "Read-only root in two slots, verified by the kernel; state on the data partition alone; SSH by key for \
ladewartctl, no account with a password, no console."
LICENSE = "MIT"

IMAGE_INSTALL = "\
    packagegroup-core-boot \
    ladewart-appliance \
    ladewart-board \
    ca-certificates \
    rauc \
    rauc-service \
"
IMAGE_FEATURES = "read-only-rootfs"
IMAGE_LINGUAS = ""
IMAGE_FSTYPES = "ladewartroot ladewartboot ladewartenv wic.zst wic.bmap"
# rauc-mark-good would confirm a slot before the daemon is healthy; ladewart-confirm.service does it after.
BAD_RECOMMENDATIONS = "rauc-mark-good"

inherit core-image features_check ladewart_slots

REQUIRED_DISTRO_FEATURES = "rauc systemd"
