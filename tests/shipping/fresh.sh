#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Run lines in a layer above a root of Debian, in a copy of this tree's files; the root stays as it is.
#   fresh.sh ROOT TREE LINES        in a mount namespace of its own, as root; the kernel is the host's
set -euo pipefail

if [[ ${ENTERED:-} != yes ]]; then
	ENTERED=yes exec unshare --mount --propagation private -- "$0" "$@"
fi
root=$1 tree=$2 lines=$3
layer=$(mktemp -d)
trap 'rmdir "$layer" 2>/dev/null || true' EXIT
mount -t tmpfs none "$layer"
mkdir "$layer"/{up,work,all}
mount -t overlay overlay -o "lowerdir=$root,upperdir=$layer/up,workdir=$layer/work" "$layer/all"
cd "$layer/all"
mkdir -p root/cgnet
(cd "$tree" && git ls-files -z --cached --others --exclude-standard) | tar -C "$tree" --null -T - -c | tar -xC root/cgnet
if [[ -n ${SOURCES:-} ]]; then # prepared by hand
	mkdir -p root/cgnet/build && cp -r "$SOURCES" root/cgnet/build/sources
fi
for each in proc sys dev; do mount --rbind "/$each" "$each"; done
cp -L /etc/resolv.conf etc/resolv.conf
printf '#!/bin/sh\nexit 101\n' >usr/sbin/policy-rc.d # no package starts a daemon
chmod +x usr/sbin/policy-rc.d
# The network that this host has, with the certificates that it believes.
certificates=
if [[ -e /etc/ssl/certs/ca-certificates.crt ]]; then
	cp -L /etc/ssl/certs/ca-certificates.crt root/certificates.crt
	certificates=/root/certificates.crt
fi
env -i HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	DEBIAN_FRONTEND=noninteractive ${certificates:+PIP_CERT=$certificates SSL_CERT_FILE=$certificates} \
	chroot . /bin/bash -euxc "cd /root/cgnet; $lines"
