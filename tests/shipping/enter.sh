#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Run a command in a root that has nothing but an RPM's files: the host's Python, its libraries and
# its kernel are bound in, in a mount namespace that ends with the command.
#   enter.sh ROOT PYTHON COMMAND…      PYTHON: the path that it is called by there
set -euo pipefail

if [[ ${ENTERED:-} != yes ]]; then
	ENTERED=yes exec unshare --mount --propagation private -- "$0" "$@"
fi
unset ENTERED
root=$1 python=$2
shift 2

# The root's own folders stay as they are: what is bound in lies on a layer above.
layer=$(mktemp -d)
mount -t tmpfs none "$layer"
mkdir "$layer"/{up,work,all}
mount -t overlay overlay -o "lowerdir=$root,upperdir=$layer/up,workdir=$layer/work" "$layer/all"
cd "$layer/all"

bound() { # a file or folder of the host, by the same path
	if [[ -d $1 ]]; then mkdir -p ".$1"; else mkdir -p ".${1%/*}" && : >>".$1"; fi
	mount --rbind "$1" ".$1"
}
host=$(readlink -f /usr/bin/python3)
for each in /proc /sys /dev /lib64 "$host" "/usr/lib/${host##*/}" /usr/lib/python3 \
	/usr/lib/x86_64-linux-gnu /usr/lib/aarch64-linux-gnu; do
	test ! -e "$each" || bound "$each"
done
ln -s usr/lib lib
mkdir -p ".${python%/*}"
test -e ".$python" || ln -s "$host" ".$python"
exec chroot . "$@"
