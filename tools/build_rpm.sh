#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Build the source and binary RPM of one distribution, on whatever this host is.
#   build_rpm.sh DIST OUT [RELEASE]      DIST is .oc9 or .oc8; the sources are there
# Paths are those of RHEL-like systems. What the spec requires to build can't be looked up where the
# host's packages aren't RPMs; tools/deps.sh --rpm installed it.
set -euo pipefail

cd "$(dirname "$0")/.."
# The same sources give the same bytes, whenever they are packed.
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1577836800)}"
dist=$1
mkdir -p "$2"
out=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/SOURCES"
if [[ $dist == .oc8 ]]; then
	cp build/dist/cgnet_ebpf-*.tar.gz build/vendored/*.whl "$work/SOURCES"
else
	cp build/plain-sdist/cgnet_ebpf-*.tar.gz "$work/SOURCES"
fi
sed "s/^Release: .*/Release: ${3:-1}%{?dist}/" packaging/cgnet.spec >"$work/cgnet.spec"

options=(--define "_topdir $work" --define "dist $dist" --define "_smp_mflags -j2"
	--define "_prefix /usr" --define "_libdir /usr/lib64" --define "_docdir_fmt %{NAME}"
	--define "_build_name_fmt %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm"
	--define "use_source_date_epoch_as_buildtime 1" --define "clamp_mtime_to_source_date_epoch 1"
	--define "_buildhost localhost")
# The bundled libbpf is to run with the C library of OpenCloudOS 8, not only with this host's.
if [[ -d build/zig ]]; then
	options+=(--define "cgnet_cc $PWD/tools/zig_cc.sh")
fi
rpm -q rpm >/dev/null 2>&1 || options+=(--nodeps)
if ! rpmbuild --quiet -ba "${options[@]}" "$work/cgnet.spec" >"$work/log" 2>&1; then
	tail -n 40 "$work/log" >&2
	exit 1
fi
mv -t "$out" "$work"/SRPMS/*.rpm "$work"/RPMS/*.rpm
ls "$out"/*.rpm
