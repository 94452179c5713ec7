#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# In a container of OpenCloudOS, as root: build the source RPM there, install what comes out by dnf, run
# it on this kernel, remove it.
#   try_rpm.sh VERSION       8 or 9; the tree, with build/dist, lies above this file
set -euo pipefail

version=$1
tree=$(cd "$(dirname "$0")/.." && pwd)
test "$version" != 9 || dnf -y -q install epol-release || true # for python3-rich, if it is there
dnf -y -q install rpm-build 'dnf-command(builddep)'
dnf -y -q builddep "$tree"/build/dist/rpm/oc"$version"/*.src.rpm
rpmbuild --rebuild --define "dist .oc$version" "$tree"/build/dist/rpm/oc"$version"/*.src.rpm
dnf -y install ~/rpmbuild/RPMS/"$(uname -m)"/cgnet-*.rpm
cgnet --version
python=$(sed -n '1s/^#!\([^ ]*\).*/\1/p' /usr/bin/cgnet)
cgnet connect --dport 47811 --limit 1 --duration 60 -o json 2>/tmp/said >/tmp/seen &
until grep -q '^cgnet: tracing' /tmp/said; do kill -0 $! && sleep 0.1; done
"$python" -c '
import socket
server = socket.create_server(("127.0.0.1", 47811))
socket.create_connection(server.getsockname())'
wait $!
grep '"result": *"ok"' /tmp/seen
dnf -y remove cgnet
test ! -e /usr/bin/cgnet
