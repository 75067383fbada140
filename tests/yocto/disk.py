"""Do wic, RAUC, fstab, fw_setenv, U-Boot's script, the units and image/parameters speak of one disk?"""

import re

import metadata
from findings import Finding, assigned, check, machines_of, name, parameters

WKS = "yocto/meta-ladewart-bsp/files/wic/ladewart-ab.wks.in"
DISK = "yocto/meta-ladewart-bsp/conf/machine/include/ladewart-disk.inc"
RAUC = "image/files/etc/rauc/system.conf"
SCRIPT = "image/boot/boot.cmd"
BUILD = "image/build"
ENVIRONMENT = "image/files/etc/fw_env.config"
DATA = "image/files/usr/libexec/ladewart/data"
BUNDLE = "yocto/meta-ladewart-distro/dynamic-layers/rauc/recipes-core/bundles/ladewart-bundle.bb"
MACHINE = "yocto/meta-ladewart-bsp/conf/machine/ladewart-qemuarm64.conf"
# In image/parameters, and in the machine's include.
SIZES = {
    "PART_LOADER": "LADEWART_PART_LOADER", "PART_UBOOTENV": "LADEWART_PART_UBOOTENV", "PART_BOOT": "LADEWART_PART_BOOT",
    "PART_ROOT": "LADEWART_PART_ROOT", "PART_DATA": "LADEWART_PART_DATA", "UBOOTENV_SIZE": "LADEWART_UBOOTENV_SIZE",
}  # fmt: skip


def partitions(tree):
    """(name, size variable) of each partition of the .wks, in order."""
    lines = [line for line in (tree / WKS).read_text(encoding="utf-8").splitlines() if line.startswith("part ")]
    return [(re.search(r"--part-name (\S+)", line)[1], re.search(r"--fixed-size \$\{(\w+)\}M", line)[1]) for line in lines]


@check
def disk(tree):
    """wks, RAUC, fw_env.config, boot script, data unit, bundle and image/parameters name the same partitions and sizes."""
    found = []

    def wrong(file, what, mend):
        found.append(Finding(file, what, mend))

    def read(file):
        return (tree / file).read_text(encoding="utf-8")

    table = partitions(tree)
    names = [entry for entry, _ in table]
    # The order and the names of image/build: both disks are the same.
    built = re.search(r"for name in (.*?); do\n", read(BUILD))[1].split()
    if [(part.split(":")[0], "LADEWART_" + part.split(":$")[1]) for part in built] != table:
        wrong(WKS, f"partitions {table} are not those of {BUILD}: {built}", f"name and order them as {BUILD} does")
    sizes, numbers = assigned(tree / DISK), parameters(tree)
    for parameter, variable in SIZES.items():
        if sizes.get(variable) != numbers[parameter]:
            wrong(DISK, f"{variable} is {sizes.get(variable)}, {parameter} of image/parameters is {numbers[parameter]}", "write the number of image/parameters")

    slots = dict(re.findall(r"\[slot\.([\w.]+)\]\ndevice=/dev/disk/by-partlabel/(\S+)", read(RAUC)))
    for slot, label in slots.items():
        if label not in names:
            wrong(RAUC, f"slot {slot} is on the partition {label}, which is not on the disk", f"name one of {', '.join(names)}, or add it to {WKS} and {BUILD}")
    # What an update must be able to write: the boot and root partitions, both slots, nothing else.
    for label in names:
        if re.fullmatch(r"(boot|root)-[ab]", label) and label not in slots.values():
            wrong(RAUC, f"the partition {label} of {WKS} is in no slot", "add [slot.…] with its device, or take the partition out")
        if not re.fullmatch(r"(boot|root)-[ab]|loader|ubootenv|data", label):
            wrong(WKS, f"the partition {label} is known neither to RAUC ({RAUC}) nor to a unit", f"add a slot to {RAUC}, or take the partition out")
    for letter in "AB":
        if f"bootname={letter}" not in read(RAUC) or f'"${{slot}}" = "{letter}"' not in read(SCRIPT):
            wrong(SCRIPT, f"slot {letter} is not in both the script and {RAUC}", "let both know the same slots")
    for label in set(re.findall(r"part (?:start|size) \S+ \S+ (\S+)", read(SCRIPT))):
        for real in [label.replace("${chosen}", letter) for letter in "ab"] if "$" in label else [label]:
            if real not in names:
                wrong(SCRIPT, f"reads the partition {real}, which is not on the disk", f"name one of {', '.join(names)}")

    label, size = re.search(r"by-partlabel/(\S+)\s+\S+\s+(0x\w+)", read(ENVIRONMENT)).groups()
    if label not in names:
        wrong(ENVIRONMENT, f"names the partition {label}, which is not on the disk", f"name one of {', '.join(names)}")
    bytes_ = int(numbers["UBOOTENV_SIZE"])
    in_script = int(re.search(r"setenv env_size (\w+)", read(SCRIPT))[1], 16), int(re.search(r"setenv env_blocks (\w+)", read(SCRIPT))[1], 16) * 512
    for file, value in ((ENVIRONMENT, int(size, 16)), (SCRIPT, in_script[0]), (SCRIPT, in_script[1])):
        if value != bytes_:
            wrong(file, f"U-Boot's variables take {value} bytes, image/parameters says {bytes_}", "write the number of image/parameters")
    wanted = re.search(r"PARTNAME=(\S+)", read(DATA))[1]
    if wanted not in names:
        wrong(DATA, f"looks for the partition {wanted}, which is not on the disk", f"name one of {', '.join(names)}")
    for device, point in re.findall(r"^([^#\s]\S*)\s+(\S+)", read("image/files/etc/fstab"), re.MULTILINE):
        label = re.search(r"(?:PARTLABEL=|by-partlabel/)(\S+)", device)
        if label and label[1] not in names:
            wrong("image/files/etc/fstab", f"mounts the partition {label[1]} at {point}, which is not on the disk", f"name one of {', '.join(names)}")

    # Slot classes of RAUC are the images of the bundle, in both builds.
    classes = {slot.split(".")[0] for slot in slots}
    bundled = assigned(tree / BUNDLE)
    if set(bundled["RAUC_BUNDLE_SLOTS"].split()) != classes:
        wrong(BUNDLE, f"RAUC_BUNDLE_SLOTS are {bundled['RAUC_BUNDLE_SLOTS']}, {RAUC} has {' '.join(sorted(classes))}", "name the same slots")
    if set(re.findall(r"^\[image\.(\w+)\]", read(BUILD), re.MULTILINE)) != classes:
        wrong(BUILD, f"the bundle's images are not the slots of {RAUC}", "name the same slots")
    board_of_qemu(tree, wrong)
    return len(names) + len(slots) + len(SIZES), found


def board_of_qemu(tree, wrong):
    """The QEMU machine is described twice, for the two builds: the values are equal."""
    board = (tree / "image/boards/qemu-arm64/board").read_text(encoding="utf-8")
    machine = assigned(tree / MACHINE)
    for ours, theirs in {
        "LADEWART_FIT_ADDR": "BOARD_FIT_ADDR", "LADEWART_KERNEL_LOAD": "BOARD_KERNEL_LOAD", "LADEWART_ARGUMENTS": "BOARD_ARGUMENTS",
        "LADEWART_DISK_INTERFACE": "BOARD_DISK_INTERFACE", "LADEWART_BOARD_FDT": "BOARD_FDT",
    }.items():  # fmt: skip
        value = re.search(rf"^{theirs}=[\"']?(.*?)[\"']?$", board, re.MULTILINE)[1]
        if machine.get(ours) != value:
            wrong(MACHINE, f"{ours} is {machine.get(ours)}, {theirs} of image/boards/qemu-arm64/board is {value}", "write the same value in both")
    compatible = re.search(r"^BOARD_COMPATIBLE=(.*)$", board, re.MULTILINE)[1]
    if f"ladewart-{machine.get('LADEWART_BOARD')}" != compatible:
        wrong(MACHINE, f"LADEWART_BOARD makes bundles for ladewart-{machine.get('LADEWART_BOARD')}, image/build for {compatible}", "use one name")


@check
def machines(tree):
    """Each machine names its board, its addresses and its device tree."""
    found, count = [], 0
    distro = tree / "yocto/meta-ladewart-distro/conf/distro/ladewart.conf"
    overrides = set((assigned(distro).get("DISTROOVERRIDES") or distro.stem).split(":"))
    recipes = {path.name.split("_")[0].removesuffix(".bb"): path for path in (tree / "yocto").rglob("*.bb")}
    for path in machines_of(tree):
        count += 1
        overrides.add(path.stem)
        read = metadata.values(tree, path, ("LADEWART_BOARD", "LADEWART_FIT_ADDR", "LADEWART_KERNEL_LOAD", "LADEWART_ARGUMENTS", "LADEWART_BOARD_FDT", "LADEWART_DEVICETREE"))
        for variable in ("LADEWART_BOARD", "LADEWART_FIT_ADDR", "LADEWART_KERNEL_LOAD", "LADEWART_ARGUMENTS"):
            if not read.get(variable):
                found.append(Finding(name(tree, path), f"does not set {variable}", "set it"))
        if not (tree / "image/boards" / (read.get("LADEWART_BOARD") or "-") / "files").is_dir():
            found.append(Finding(name(tree, path), f"there is no image/boards/{read.get('LADEWART_BOARD')}/files", "add the board's files, or mend the name"))
        if (read.get("LADEWART_BOARD_FDT") or "").endswith(":fdt") and not read.get("LADEWART_DEVICETREE"):
            found.append(Finding(name(tree, path), "takes the device tree out of the FIT, but LADEWART_DEVICETREE names none", "set LADEWART_DEVICETREE"))
    for clash in sorted(overrides & set(recipes)):
        found.append(Finding(name(tree, recipes[clash]), f"{clash} is also an override, which would meet this recipe's variables", "name the distro's or machine's override otherwise"))
    return count, found
