# Installs files of the disk as they lie in image/files (LADEWART_FILES) and in image/boards/NAME/files
# (LADEWART_BOARD_FILES), each with its own mode and at its own place: the tree is the one source of what is on the disk.
#
# The layers lie in the repository whose files they install; a recipe names the way up itself:
#   FILESEXTRAPATHS:prepend := "${THISDIR}/../../../..:"

LADEWART_FILES ?= ""
LADEWART_FILES[doc] = "Files below image/files of the Ladewart tree that this recipe installs, relative to the root."
LADEWART_BOARD_FILES ?= ""
LADEWART_BOARD_FILES[doc] = "Files below image/boards/LADEWART_BOARD/files that this recipe installs, relative to the root."
LADEWART_BOARD ?= ""
LADEWART_BOARD[doc] = "The board's name below image/boards; a machine sets it."

def ladewart_uris(d):
    """The SRC_URI of the files; nothing for a board that the machine does not name."""
    uris = ["file://image/files/%s;subdir=${BP}" % file for file in (d.getVar("LADEWART_FILES") or "").split()]
    board = d.getVar("LADEWART_BOARD")
    if board:
        uris += ["file://image/boards/%s/files/%s;subdir=${BP}" % (board, file) for file in (d.getVar("LADEWART_BOARD_FILES") or "").split()]
    return " ".join(uris)

SRC_URI += "${@ladewart_uris(d)}"

ladewart_files_install () {
    for file in ${LADEWART_FILES}; do
        ladewart_file_install "${S}/image/files/$file" "$file"
    done
    for file in ${LADEWART_BOARD_FILES}; do
        ladewart_file_install "${S}/image/boards/${LADEWART_BOARD}/files/$file" "$file"
    done
}

ladewart_file_install () {
    mode=0644
    [ ! -x "$1" ] || mode=0755
    install -D -m $mode "$1" "${D}/$2"
}

do_install[postfuncs] += "ladewart_files_install"
