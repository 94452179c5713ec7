#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Run a command as the owner of this tree. `sudo make demo` builds so: a plain `make` still works
# afterwards, and nothing in the tree belongs to root unless the tree does.
set -euo pipefail

tree=$(cd "$(dirname "$0")/.." && pwd)
owner=$(stat -c %u "$tree")
if ((EUID != 0 || owner == 0)); then
	exec "$@"
fi
group=$(stat -c %g "$tree")
if entry=$(getent passwd "$owner"); then
	IFS=: read -r name _ _ group _ home _ <<<"$entry"
	groups=--init-groups
else # the owner is known to another machine only, as in a container
	name=$owner home=/nonexistent groups=--clear-groups
fi
as_owner=(setpriv --reuid "$owner" --regid "$group" "$groups"
	env HOME="$home" USER="$name" LOGNAME="$name")
if "${as_owner[@]}" test -w "$tree"; then
	exec "${as_owner[@]}" "$@"
fi
exec "$@" # the tree lies where its owner can't go
