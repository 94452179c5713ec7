#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Install the system packages that building, testing and the demo need, where they are missing.
# With --check: install nothing; say what is missing and fail. With --containers: also what the tests
# of real containers need. With --vm: what those in guests need, which Debian and Ubuntu have. With --rpm: what building
# RPMs needs. With --roots: what fresh roots of Debian are made with. With --rivals: what measurements take, and are compared with. bpftool is left out:
# only `make vmlinux` needs it.
set -euo pipefail

# A plain user's PATH may lack sbin; root's may have what nobody else can run.
system_path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
if ((EUID == 0)); then PATH=$system_path; else PATH=$PATH:$system_path; fi
with_containers='' with_vm='' with_rpm='' with_rivals='' with_roots=''
APT=(apt-get -qq -o DPkg::Lock::Timeout=120)

has_python() {
	local python
	for python in /usr/bin/python3 python3.13 python3.12 python3.11 python3; do
		"$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
			2>/dev/null && return
	done
	return 1
}

has_library() {
	compgen -G "/usr/lib*/libbpf.so.1" || compgen -G "/usr/lib/*/libbpf.so.1" ||
		{ ldconfig -p | grep -F 'libbpf.so.1 '; }
} >/dev/null 2>&1

# Debian's pwru, which guests run, takes it. Where there is no apt, there are no guests.
has_libpcap() {
	! command -v apt-get || { ldconfig -p | grep -F 'libpcap.so.0.8 '; }
} >/dev/null

# QEMU brought one until 8.0. Whether it does is known when it is there.
has_virtiofsd() {
	! command -v qemu-system-x86_64 || compgen -G "/usr/lib*/virtiofsd" || compgen -G "/usr/lib*/*/virtiofsd"
} >/dev/null

# One word for each need that is not met.
missing() {
	local tool tools=(make clang llvm-strip ip nft jq)
	test -z "$with_containers" || tools+=(podman runc busybox containerd ctr dockerd cpio conntrack)
	test -z "$with_vm" || tools+=(qemu-system-x86_64 qemu-system-aarch64 udevadm depmod file busybox dpkg apt-get mmdebstrap)
	test -z "$with_rivals" || tools+=(bpftrace tcplife iperf3)
	test -z "$with_rpm" || tools+=(rpmbuild rpmlint)
	test -z "$with_roots" || tools+=(mmdebstrap)
	for tool in "${tools[@]}"; do
		command -v "$tool" >/dev/null || echo "$tool"
	done
	command -v bzip2 >/dev/null || echo bzip2 # two of the bundled libbpf's sources are packed by it
	has_library || echo libbpf
	test -e /usr/include/bpf/bpf_helpers.h || echo libbpf-headers
	has_python || echo python
	test -z "$with_rivals" || has_libpcap || echo libpcap
	test -z "$with_vm" || has_virtiofsd || echo virtiofsd
	# By which apt knows Debian's kernels; Ubuntu has it as a package.
	test -z "$with_vm" || test -e /usr/share/keyrings/debian-archive-keyring.gpg || echo debian-archive-keyring
	test -z "$with_rpm" || /usr/bin/python3 -c 'import click, rich' 2>/dev/null || echo click
}

# The packages of a need, by the package manager's names; alternatives are tried from left to right.
packages() {
	case $1:$2 in
	*:llvm-strip) echo llvm ;;
	apt:ip) echo iproute2 ;;
	dnf:ip) echo iproute ;;
	dnf:conntrack) echo conntrack-tools ;;
	*:nft) echo nftables ;;
	apt:rpmbuild) echo rpm ;;
	dnf:rpmbuild) echo rpm-build ;;
	*:click) echo python3-click python3-rich ;;
	apt:busybox) echo busybox-static ;;
	*:ctr) echo containerd ;;
	*:qemu-system-x86_64) echo qemu-system-x86 ;;
	apt:qemu-system-aarch64) echo qemu-system-arm ;;
	dnf:qemu-system-aarch64) echo qemu-system-aarch64-core ;;
	*:udevadm) echo udev ;;
	*:depmod) echo kmod ;;
	apt:dockerd) echo docker.io ;;
	dnf:dockerd) echo moby-engine docker ;;
	apt:tcplife) echo libbpf-tools ;;
	dnf:tcplife) echo libbpf-tools bcc-tools ;;
	apt:libbpf) echo libbpf1 ;;
	dnf:libbpf) echo libbpf ;;
	apt:libbpf-headers) echo libbpf-dev ;;
	dnf:libbpf-headers) echo libbpf-devel ;;
	apt:libpcap) echo libpcap0.8 ;;
	apt:python) echo python3-venv ;;
	dnf:python) echo python3 python3.12 python3.11 ;;
	*) echo "$2" ;;
	esac
}

# A package that isn't there under any name is told by the last check.
install_apt() {
	local names=() found need
	for need in "$@"; do
		read -ra found <<<"$(packages apt "$need")"
		names+=("${found[@]}")
	done
	printf 'installing %s\n' "${names[@]}"
	export DEBIAN_FRONTEND=noninteractive
	"${APT[@]}" install -y --no-install-recommends "${names[@]}" >/dev/null 2>&1 && return
	# The lists may be empty or old. A source of somebody else that fails is no concern of ours.
	"${APT[@]}" update || true
	"${APT[@]}" install -y --no-install-recommends "${names[@]}" >/dev/null || true # the last check tells
}

install_dnf() {
	local need name
	for need in "$@"; do
		for name in $(packages dnf "$need"); do
			echo "installing $name"
			dnf install -y -q "$name" >/dev/null || true
			missing | grep -qx "$need" || break
		done
	done
}

main() {
	local needs check=''
	while (($#)); do
		case $1 in
		--check) check=yes ;;
		--containers) with_containers=yes ;;
		--vm) with_vm=yes ;;
		--rpm) with_rpm=yes ;;
		--rivals) with_rivals=yes ;;
		--roots) with_roots=yes ;;
		*) echo "usage: $0 [--check] [--containers] [--vm] [--rpm] [--rivals] [--roots]" >&2 && return 2 ;;
		esac
		shift
	done
	mapfile -t needs < <(missing)
	if ((${#needs[@]} == 0)); then
		test -n "$check" || echo "nothing is missing"
		return
	fi
	if test -n "$check"; then
		echo "missing: ${needs[*]}; run 'sudo make deps'" >&2
		return 1
	fi
	if ((EUID != 0)); then
		echo "installing ${needs[*]} takes root: run 'sudo make deps'" >&2
		return 1
	fi
	for _ in first second; do # some needs are known when others are met
		if command -v apt-get >/dev/null; then
			install_apt "${needs[@]}"
		elif command -v dnf >/dev/null; then
			install_dnf "${needs[@]}"
		fi
		hash -r
		mapfile -t needs < <(missing)
		((${#needs[@]} == 0)) && return
	done
	echo "still missing: ${needs[*]} (libbpf: 1.0 or newer, python: 3.11 or newer with venv);" \
		"this system's packages don't provide it" >&2
	return 1
}

main "$@"
