#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Get the sources that a bundled libbpf is built from, by apt-get from Debian 12, into a folder.
#   sources.sh FOLDER
# Their checksums stand in packaging/sources.sha256. An archive that is there already isn't got again:
# on another system, put them there by hand.
set -euo pipefail

sums=$(cd "$(dirname "$0")/.." && pwd)/packaging/sources.sha256
mkdir -p "$1"
cd "$1"
sha256sum --check --status "$sums" 2>/dev/null && exit

# The system's own sources, but of source packages; nothing of the system's apt is changed.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/got"
apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT) $(LABEL)' \
	'Created-By: Packages' 2>/dev/null |
	awk '/ Debian$/ { print "deb-src", $1, $2, $3 }' | sort -u >"$work/sources.list" || true
if [[ -s $work/sources.list ]]; then
	apt=(apt-get -qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=-
		-o Dir::State::Lists="$work/lists" -o Dir::Cache="$work" -o APT::Sandbox::User=root)
	"${apt[@]}" update
	(cd "$work/got" && "${apt[@]}" source --download-only libbpf elfutils zlib) || true
	find "$work/got" -name '*.orig.tar.*' ! -name '*.asc' -exec mv -t . {} +
fi
sha256sum --check --quiet "$sums" && exit
echo "put these archives, of Debian 12's source packages, into $PWD:" >&2
cat "$sums" >&2
exit 1
