#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Copy the built wheel, completions and manual pages to a prefix, or remove them. Run through `make install`.
#   install.sh DESTDIR PREFIX PYTHON
#   install.sh --remove DESTDIR PREFIX
# Nothing that is copied links back into the checkout, and only its owner can write to it.
set -euo pipefail
umask 022

place() {
	destdir=$1 prefix=$2
	if [[ $prefix != /* || $prefix = / ]]; then
		echo "PREFIX=$prefix: give an absolute path" >&2
		exit 2
	fi
	home=$prefix/lib/cgnet
	launcher=$destdir$prefix/bin/cgnet
	completions=(
		"$destdir$prefix/share/bash-completion/completions/cgnet"
		"$destdir$prefix/share/zsh/site-functions/_cgnet"
		"$destdir$prefix/share/fish/vendor_completions.d/cgnet.fish"
	)
	manual=$destdir$prefix/share/man/man8
	manual_zh=$destdir$prefix/share/man/zh_CN/man8
	if [[ -e $destdir$home && ! -e $destdir$home/pyvenv.cfg ]]; then
		echo "$destdir$home isn't an installed cgnet: left alone" >&2
		exit 1
	fi
}

remove() {
	rm -rf "$destdir$home" "$destdir$home.new"
	rm -f "$launcher" "${completions[@]}" "$manual"/cgnet{,-*}.8 "$manual_zh/cgnet.8"
	echo "removed cgnet from $destdir$prefix"
}

# A fresh environment beside the old one, which is replaced when all has gone well.
copy_package() {
	local python=$1 new=$destdir$home.new
	rm -rf "$new"
	mkdir -p "${new%/*}"
	"$python" -m venv "$new"
	"$new/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir \
		--no-compile "$(echo build/plain-wheel/cgnet_ebpf-*.whl)[explain]" # with all that it can tell
	"$new/bin/python" -m pip uninstall --quiet --yes --disable-pip-version-check pip setuptools
	rm -f "$new"/lib/python3*/site-packages/cgnet_ebpf-*.dist-info/direct_url.json # names the checkout
	find "$new/bin" ! -name 'python*' -type f -delete # scripts that name the place it was made in
	rm -rf "$destdir$home"
	mv "$new" "$destdir$home"
	"$destdir$home/bin/python" -m compileall -q "$destdir$home/lib"
}

copy_launcher() {
	mkdir -p "${launcher%/*}"
	rm -f "$launcher" # it may be a link
	cat >"$launcher" <<-END
		#!$home/bin/python -I
		from cgnet.cli import main
		main()
	END
	chmod 755 "$launcher"
}

copy_manual() {
	install -d "$manual" "$manual_zh"
	install -m 644 build/man/cgnet*.8 "$manual"
	install -m 644 packaging/zh_CN/cgnet.8 "$manual_zh"
}

copy_completions() {
	local shells=(bash zsh fish) i
	for i in 0 1 2; do
		install -D -m 644 "build/completions/cgnet.${shells[i]}" "${completions[i]}"
	done
}

cd "$(dirname "$0")/.."
if [[ $1 = --remove ]]; then
	place "$2" "$3"
	remove
else
	place "$1" "$2"
	copy_package "$3"
	copy_launcher
	copy_completions
	copy_manual
	echo "installed $launcher"
fi
