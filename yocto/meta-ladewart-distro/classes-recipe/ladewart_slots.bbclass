# What is written into a slot, and what U-Boot reads: the same three files as image/build makes, by the same recipe.
#
#   ladewartroot  squashfs with its dm-verity tree behind it            -> partition root-a or root-b
#   ladewartboot  FIT: kernel, initial RAM disk, arguments (root hash)  -> partition boot-a or boot-b
#   ladewartenv   U-Boot's variables of a new disk                      -> partition ubootenv
#
# wic and the RAUC bundle take them from here. A machine sets LADEWART_BOARD, LADEWART_ARGUMENTS and
# LADEWART_KERNEL_LOAD (conf/machine/include/ladewart-disk.inc of meta-ladewart-bsp).

LADEWART_INITRAMFS ?= "ladewart-initramfs"
LADEWART_INITRAMFS[doc] = "Image recipe of the initial RAM disk."
LADEWART_ARGUMENTS ?= "panic=5 quiet loglevel=4 ro"
LADEWART_ARGUMENTS[doc] = "The kernel's arguments before slot and root hash are added; the board's console goes here."
LADEWART_DEVICETREE ?= ""
LADEWART_DEVICETREE[doc] = "Name of the device tree in the deploy directory; empty where the loader brings its own (QEMU)."
LADEWART_TREE = "${THISDIR}/../../../.."
LADEWART_TREE[doc] = "The Ladewart tree in which the layers lie."

LADEWART_SLOT_TYPES = "ladewartroot ladewartboot ladewartenv"
LADEWART_SLOT_TYPES[doc] = "The image types that this class makes."
IMAGE_TYPES += "${LADEWART_SLOT_TYPES}"
# nooelint: oelint.vars.specific
IMAGE_TYPEDEP:ladewartroot = "squashfs-zst"
# nooelint: oelint.vars.specific
IMAGE_TYPEDEP:ladewartboot = "ladewartroot"
# nooelint: oelint.vars.specific
IMAGE_TYPEDEP:wic = "${LADEWART_SLOT_TYPES}"

# nooelint: oelint.vars.specific
EXTRA_IMAGECMD:squashfs-zst = "-all-root -no-xattrs -b 256K -Xcompression-level 19"

do_image_ladewartroot[depends] += "cryptsetup-native:do_populate_sysroot"
do_image_ladewartboot[depends] += "\
    dtc-native:do_populate_sysroot \
    u-boot-tools-native:do_populate_sysroot \
    virtual/kernel:do_deploy \
    ${LADEWART_INITRAMFS}:do_image_complete \
"
do_image_ladewartenv[depends] += "u-boot-tools-native:do_populate_sysroot"
do_image_ladewartboot[file-checksums] += "${LADEWART_TREE}/image/boot/fit.its.in:True"

# Salt from the content and no identity, so that equal content gives an equal root hash.
IMAGE_CMD:ladewartroot () {
    out="${IMGDEPLOYDIR}/${IMAGE_NAME}.ladewartroot"
    squashfs="${IMGDEPLOYDIR}/${IMAGE_NAME}.squashfs-zst"
    cp "$squashfs" "$out"
    size=$(stat -c %s "$out")
    size=$(expr \( $size + 4095 \) / 4096 \* 4096)
    truncate -s $size "$out"
    salt=$(sha256sum "$squashfs" | cut -c1-64)
    veritysetup format --salt=$salt --uuid=00000000-0000-0000-0000-000000000000 --hash-offset=$size "$out" "$out" \
        >"${WORKDIR}/verity.txt"
    ladewart_fits "$out" ${LADEWART_PART_ROOT}
    {
        echo "root=$(sed -n 's/^Root hash:[[:space:]]*//p' "${WORKDIR}/verity.txt")"
        echo "salt=$salt"
        echo "blocks=$(expr $size / 4096)"
    } >"${WORKDIR}/verity.env"
}

IMAGE_CMD:ladewartboot () {
    out="${IMGDEPLOYDIR}/${IMAGE_NAME}.ladewartboot"
    . "${WORKDIR}/verity.env"
    echo "setenv bootargs \"${LADEWART_ARGUMENTS} ladewart.root=$root ladewart.salt=$salt ladewart.blocks=$blocks\"" \
        >"${WORKDIR}/arguments.cmd"
    gzip -9nc "${DEPLOY_DIR_IMAGE}/${KERNEL_IMAGETYPE}" >"${WORKDIR}/kernel.gz"
    node='' use=''
    if [ -n "${LADEWART_DEVICETREE}" ]; then
        node='fdt { data = /incbin/("${DEPLOY_DIR_IMAGE}/${LADEWART_DEVICETREE}"); type = "flat_dt"; arch = "arm64"; compression = "none"; hash { algo = "sha256"; }; };'
        use='fdt = "fdt";'
    fi
    sed -e "s|@VERSION@|${IMAGE_VERSION}|; s|@KERNEL@|${WORKDIR}/kernel.gz|; s|@KERNEL_LOAD@|${LADEWART_KERNEL_LOAD}|; s|@KERNEL_COMPRESSION@|gzip|" \
        -e "s|@INITRD@|${DEPLOY_DIR_IMAGE}/${LADEWART_INITRAMFS}-${MACHINE}.cpio.zst|" \
        -e "s|@ARGUMENTS@|${WORKDIR}/arguments.cmd|" \
        -e "s|@DEVICETREE@|$node|; s|@DEVICETREE_USE@|$use|" \
        "${LADEWART_TREE}/image/boot/fit.its.in" >"${WORKDIR}/fit.its"
    mkimage -f "${WORKDIR}/fit.its" "$out"
    ladewart_fits "$out" ${LADEWART_PART_BOOT}
}

IMAGE_CMD:ladewartenv () {
    printf 'BOOT_ORDER=A B\nBOOT_A_LEFT=3\nBOOT_B_LEFT=3\n' |
        mkenvimage -s ${LADEWART_UBOOTENV_SIZE} -o "${IMGDEPLOYDIR}/${IMAGE_NAME}.ladewartenv" -
}

# ladewart_fits FILE MIB
ladewart_fits () {
    [ $(stat -c %s "$1") -le $(expr $2 \* 1048576) ] || bbfatal "$1 is larger than its partition of $2 MiB"
}
