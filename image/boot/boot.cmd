# Chooses the slot (U-Boot's hush shell). Before it come the board's own settings: disk_interface and disk_unit (where the
# partitions are), fit_addr (where there is room for a FIT), board_fdt (the device tree, as bootm takes it).
# Each slot has three tries; a try is counted and stored before the boot, and
# RAUC gives the three back when the daemon is healthy (ladewart-confirm.service).
#
# Variables in the partition "ubootenv", shared with RAUC and fw_setenv: BOOT_ORDER, BOOT_A_LEFT, BOOT_B_LEFT,
# machine_id. If they cannot be read (checksum), both slots count as good, A first.

setenv env_size 4000
setenv env_blocks 20
${disk_interface} dev ${disk_unit}
part start ${disk_interface} ${disk_unit} ubootenv env_start
setenv BOOT_ORDER
setenv BOOT_A_LEFT
setenv BOOT_B_LEFT
setenv machine_id
if ${disk_interface} read ${scriptaddr} ${env_start} ${env_blocks}; then
    env import -c ${scriptaddr} ${env_size} BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT machine_id
fi
test -n "${BOOT_ORDER}" || setenv BOOT_ORDER "A B"
test -n "${BOOT_A_LEFT}" || setenv BOOT_A_LEFT 3
test -n "${BOOT_B_LEFT}" || setenv BOOT_B_LEFT 3

for slot in "${BOOT_ORDER}"; do
    setenv chosen
    if test "${slot}" = "A" && test ${BOOT_A_LEFT} -gt 0; then
        setexpr BOOT_A_LEFT ${BOOT_A_LEFT} - 1
        setenv chosen a
    fi
    if test "${slot}" = "B" && test ${BOOT_B_LEFT} -gt 0; then
        setexpr BOOT_B_LEFT ${BOOT_B_LEFT} - 1
        setenv chosen b
    fi
    if test -n "${chosen}"; then
        mw.b ${scriptaddr} 0 ${env_size}
        env export -c -s ${env_size} ${scriptaddr} BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT machine_id
        ${disk_interface} write ${scriptaddr} ${env_start} ${env_blocks}
        echo "ladewart: slot ${slot}, tries left A=${BOOT_A_LEFT} B=${BOOT_B_LEFT}"
        part start ${disk_interface} ${disk_unit} boot-${chosen} fit_start
        part size ${disk_interface} ${disk_unit} boot-${chosen} fit_size
        if ${disk_interface} read ${fit_addr} ${fit_start} ${fit_size}; then
            setenv bootargs
            if source ${fit_addr}:arguments; then
                setenv bootargs "${bootargs} ladewart.slot=${chosen} rauc.slot=${slot}"
                test -z "${machine_id}" || setenv bootargs "${bootargs} systemd.machine_id=${machine_id}"
                bootm ${fit_addr}#ladewart ${fit_addr}:ramdisk ${board_fdt}
            fi
        fi
        echo "ladewart: slot ${slot} holds nothing that can be booted"
    fi
done

# Every try is used up. Better to try again than to stay dark.
echo "ladewart: no slot left, counting anew"
setenv BOOT_A_LEFT 3
setenv BOOT_B_LEFT 3
mw.b ${scriptaddr} 0 ${env_size}
env export -c -s ${env_size} ${scriptaddr} BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT machine_id
${disk_interface} write ${scriptaddr} ${env_start} ${env_blocks}
sleep 5
reset
