#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Get the sources that a bundled libbpf is built from, into a folder: by apt-get where it knows Debian, else from
# the addresses in SUMS.
#   sources.sh FOLDER [SUMS]      SUMS: packaging/sources.sha256
# An archive that is there already isn't got again: where neither works, put them there by hand.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
sums=$(realpath "${2:-$root/packaging/sources.sha256}")
mkdir -p "$1"
cd "$1"
are_there() { sha256sum --check --status "$sums" 2>/dev/null; }
are_there && exit

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The system's own mirrors, but of Debian 12's source packages, also on a later Debian; nothing of the
# system's apt is changed.
from_apt() {
	local apt
	mkdir -p "$work/lists/partial" "$work/got"
	apt-get indextargets --format '$(REPO_URI) $(LABEL)' 'Created-By: Packages' 2>/dev/null |
		awk '/ Debian$/ { print "deb-src", $1, "bookworm main" }' | sort -u >"$work/sources.list" || true
	test -s "$work/sources.list" || return 0
	apt=(apt-get -qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=-
		-o Dir::State::Lists="$work/lists" -o Dir::Cache="$work" -o APT::Sandbox::User=root)
	"${apt[@]}" update || return 0
	(cd "$work/got" && "${apt[@]}" source --download-only libbpf elfutils zlib) || true
	find "$work/got" -name '*.orig.tar.*' ! -name '*.asc' -exec mv -t . {} +
}

# fetch FILE SUM ADDRESS…: the first that fits. The sum is what makes it trusted, whatever brings it.
fetch() {
	local file=$1 sum=$2 address
	shift 2
	for address in "$@"; do
		"${PYTHON:-python3}" - "$address" "$work/$file" <<-'END' || continue
			import shutil, sys, urllib.request
			try:
			    with urllib.request.urlopen(sys.argv[1], timeout=60) as got, open(sys.argv[2], "wb") as to:
			        shutil.copyfileobj(got, to)
			except OSError as error:
			    sys.exit(f"{sys.argv[1]}: {error}")
		END
		if sha256sum --check --status <<<"$sum  $work/$file"; then
			mv "$work/$file" "$file"
			return
		fi
		echo "$address: not what its sum says" >&2
	done
}

from_addresses() {
	local addresses=() mark word
	while read -r mark word; do
		if [[ $mark == '#' ]]; then
			[[ $word != http* ]] || addresses+=("$word")
			continue
		fi
		sha256sum --check --status <<<"$mark  $word" 2>/dev/null || fetch "$word" "$mark" "${addresses[@]}"
		addresses=()
	done <"$sums"
}

if command -v apt-get >/dev/null; then from_apt; fi
are_there || from_addresses
are_there && exit
echo "the sources of the bundled libbpf aren't to be had from here. Put these archives into $PWD:" >&2
cat "$sums" >&2
exit 1
